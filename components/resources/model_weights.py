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
    """Head first: the others copy from it."""

    copy_keys: Sequence[Step]
    authorization: Step | None
    """None: nobody copies, or another model's weights have brought the keys."""

    sparks: Mapping[str, SparkAccess]
    token: str
    """Opens gated repositories; '' for none. Goes by stdin and is kept on no Spark."""

    needs: Sequence[Resource]
    """The Sparks taken for this stack, the image whose hub client downloads, and the link that the copies take."""


class ModelWeights(ComponentResource):
    """Downloaded once on the head, copied over the fabric to the others, every file verified everywhere."""

    access: list[Resource]
    """What lets the others copy from the head."""

    def __init__(self, name: str, args: ModelWeightsArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:model:ModelWeights", name, {"model": args.repo}, opts)
        head, *others = args.steps
        self._args = args
        self.access = access = self._copy_access(name)
        token = Output.secret(args.token) if args.token else ""
        first = self._place(name, head, args.needs, {"token": token})
        for step in others:
            self._place(name, step, [*args.needs, first, *access], {})
        self.register_outputs({})

    def _copy_access(self, name: str) -> list[Resource]:
        """Keys made on the Sparks that copy; the head lets them read the weights."""
        if self._args.authorization is None:
            return []
        after = ResourceOptions(parent=self, depends_on=list(self._args.needs))
        keys = [
            self._args.sparks[step.node].run(f"{name}-key-{step.node}", step, after).stdout
            for step in self._args.copy_keys
        ]
        step = self._args.authorization
        public = Output.all(*keys)
        spark = self._args.sparks[step.node]
        opened = spark.run(f"{name}-access", step, after, outputs={"keys": public})
        return [opened]

    def _place(
        self, name: str, step: Step, after: Sequence[Resource], outputs: Mapping[str, pulumi.Input[str]]
    ) -> remote.Command:
        options = ResourceOptions(parent=self, depends_on=list(after))
        return self._args.sparks[step.node].run(f"{name}-{step.node}", step, options, outputs=outputs)
