"""The engine's image on every Spark, the same one, with what the engine needs inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import Images
from components.resources.access import SparkAccess

PULL_LIMIT = "3h"
"""An engine's image is 20 GB and more; a slow line takes its time."""


@dataclass(frozen=True)
class EngineImageArgs:
    image: Images
    sparks: Mapping[str, SparkAccess]
    """Head first."""

    needs: Sequence[Resource]
    """The Sparks taken for this stack, and the link that copies take."""


class EngineImage(ComponentResource):
    """Pulled on every Spark, or pulled or built on the head and streamed to the others over the fabric.

    Refused unless all end with one id and one version of Ray.
    """

    ids: dict[str, Output[str]]
    """Node → id of the image to run there."""

    def __init__(self, name: str, args: EngineImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:image:EngineImage", name, {"image": args.image.name}, opts)
        self._name, self._args = name, args
        self._child = ResourceOptions(parent=self, depends_on=list(args.needs))
        head, *others = args.sparks
        if args.image.source == "pull":
            pulled = {node: self._pull(node) for node in args.sparks}
            self.ids = self._complete(
                Output.all(**pulled).apply(lambda ids: one_image(args.image.name, ids)), [head, *others]
            )
        else:
            first = self._pull(head) if args.image.build is None else self._build()
            on_head = self._complete(Output.all(**{head: first}), [head])[head]
            self.ids = {head: on_head, **self._copies(on_head)}
        self.register_outputs({"ids": self.ids})

    def _pull(self, node: str) -> Output[str]:
        return docker.RemoteImage(
            f"{self._name}-{node}",
            name=self._args.image.name,
            # The next model uses the same image: a destroy must not cost another 20 GB.
            keep_locally=True,
            opts=ResourceOptions(
                parent=self,
                depends_on=list(self._args.needs),
                provider=self._args.sparks[node].provider,
                custom_timeouts=pulumi.CustomTimeouts(create=PULL_LIMIT, update=PULL_LIMIT),
            ),
        ).image_id

    def _build(self) -> Output[str]:
        step = self._args.image.build
        assert step is not None
        return self._args.sparks[step.node].run(f"{self._name}-build", step, self._child).stdout

    def _complete(self, bases: Output[dict[str, str]], nodes: list[str]) -> dict[str, Output[str]]:
        """With what the engine needs beside itself."""
        steps = self._args.image.additions
        if not steps:
            return {node: bases[node] for node in nodes}
        made = {}
        for node in nodes:
            base = bases[node]
            made[node] = (
                self._args.sparks[node]
                .run(
                    f"{self._name}-with-{node}",
                    steps[node],
                    self._child,
                    more={"image": base},
                    triggers=(base,),
                )
                .stdout
            )
        checked = Output.all(**made).apply(one_ray)
        return {node: checked[node] for node in nodes}

    def _copies(self, image: Output[str]) -> dict[str, Output[str]]:
        """Node → id, of the Sparks that copy from the head."""
        plan, sparks = self._args.image, self._args.sparks
        if plan.access is None:
            return {}
        keys = [sparks[step.node].run(f"{self._name}-key-{step.node}", step, self._child).stdout for step in plan.keys]
        more = {"keys": Output.all(*keys), "image": image}
        access = sparks[plan.access.node].run(f"{self._name}-access", plan.access, self._child, more=more)
        return {
            step.node: sparks[step.node]
            .run(
                f"{self._name}-copy-{step.node}",
                step,
                ResourceOptions(parent=self, depends_on=[*self._args.needs, access]),
                more={"image": image},
                triggers=(image,),
            )
            .stdout
            for step in plan.copies
        }


def one_image(name: str, ids: Mapping[str, str]) -> dict[str, str]:
    """Refuses Sparks whose tag stands for different images."""
    if len(set(ids.values())) > 1:
        found = "\n".join(f"  {node}: {image}" for node, image in ids.items())
        raise pulumi.RunError(
            f"{name} is a different image on each Spark:\n{found}\n"
            f"  → remove it where it is old (`docker image rm {name}`) and run `pulumi up` again, or let the head "
            "copy its own to the others: `pulumi config set --path image.source copy`"
        )
    return dict(ids)


def one_ray(answers: Mapping[str, str]) -> dict[str, str]:
    """Node → image id, from the steps' JSON. Refuses Sparks whose images have different versions of Ray."""
    made = {node: json.loads(answer) for node, answer in answers.items()}
    if len({answer["ray"] for answer in made.values()}) > 1:
        found = "\n".join(f"  {node}: Ray {answer['ray']} in {answer['image']}" for node, answer in made.items())
        raise pulumi.RunError(f"Ray must be the same on every Spark:\n{found}\n  → use one image on all of them")
    return {node: answer["image"] for node, answer in made.items()}
