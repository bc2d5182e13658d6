"""One revision of a model, complete and verified on every Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi import ComponentResource, Output, Resource, ResourceOptions
from pulumi_command import remote

from components.plan.values import Step
from components.resources.access import SparkAccess


@dataclass(frozen=True)
class ModelWeightsArgs:
    repo: str
    steps: Sequence[Step]
    """Head first: each of the others copies from the one before it."""

    copy_keys: Sequence[Step]
    """On each Spark but the head."""

    authorizations: Sequence[Step]
    """On each Spark but the last. Empty: nobody copies, or another model's weights have brought the keys."""

    sparks: Mapping[str, SparkAccess]
    token: str
    """Opens gated repositories; '' for none. Goes by stdin and is kept on no Spark."""

    taken: Sequence[Resource]
    """What takes the Sparks for this stack: enough for the keys of copies."""

    needs: Sequence[Resource]
    """The Sparks taken for this stack, the image whose hub client downloads, and the link that the copies take."""


class ModelWeights(ComponentResource):
    """Downloaded once on the head, copied over the fabric from Spark to Spark, every file verified everywhere."""

    def __init__(self, name: str, args: ModelWeightsArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:model:ModelWeights", name, {"model": args.repo}, opts)
        head, *others = args.steps
        self._args = args
        access = self._copy_access(name)
        token = Output.secret(args.token) if args.token else ""
        first = self._place(name, head, args.needs, {"token": token})
        for step in others:
            self._place(name, step, [*args.needs, first, *access], {})
        self.register_outputs({})

    def _copy_access(self, name: str) -> list[Resource]:
        """What lets each Spark copy from the one before it: keys made on those that copy."""
        if not self._args.authorizations:
            return []
        after = ResourceOptions(parent=self, depends_on=list(self._args.taken))
        head = self._args.steps[0].node

        def let_in(before: Step, key: Step) -> Resource:
            public = self._args.sparks[key.node].run(f"{name}-key-{key.node}", key, after).stdout
            called = f"{name}-access" if before.node == head else f"{name}-access-{before.node}"
            return self._args.sparks[before.node].run(called, before, after, outputs={"keys": [public]})

        return [let_in(*hop) for hop in zip(self._args.authorizations, self._args.copy_keys, strict=True)]

    def _place(
        self, name: str, step: Step, after: Sequence[Resource], outputs: Mapping[str, pulumi.Input[str]]
    ) -> remote.Command:
        options = ResourceOptions(parent=self, depends_on=list(after))
        return self._args.sparks[step.node].run(f"{name}-{step.node}", step, options, outputs=outputs)
