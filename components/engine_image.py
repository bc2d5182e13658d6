"""The engine's image on every Spark, the same one, with what the engine needs inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import ComponentResource, Output, ResourceOptions

from components.access import SparkAccess
from components.plan import Image, Step

PULL_LIMIT = "3h"
"""An engine's image is 20 GB and more; a slow line takes its time."""


@dataclass(frozen=True)
class EngineImageArgs:
    image: Image
    sparks: Mapping[str, SparkAccess]
    ray_steps: Mapping[str, Step]
    """Node → step that makes sure of Ray. Empty: the engine needs none."""


class EngineImage(ComponentResource):
    """Pulled on every Spark; refused unless all end with one id and one version of Ray."""

    ids: dict[str, Output[str]]
    """Node → id of the image to run there."""

    def __init__(self, name: str, args: EngineImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:image:EngineImage", name, {"image": args.image.name}, opts)
        pulled = {node: self._pull(f"{name}-{node}", args.image.name, spark) for node, spark in args.sparks.items()}
        bases = Output.all(**pulled).apply(lambda ids: one_image(args.image.name, ids))
        if not args.ray_steps:
            self.ids = {node: bases[node] for node in pulled}
        else:
            made = Output.all(
                **{n: self._with_ray(f"{name}-ray-{n}", s, args, bases) for n, s in args.ray_steps.items()}
            )
            checked = made.apply(one_ray)
            self.ids = {node: checked[node] for node in pulled}
        self.register_outputs({"ids": self.ids})

    def _pull(self, name: str, image: str, spark: SparkAccess) -> Output[str]:
        return docker.RemoteImage(
            name,
            name=image,
            # The next model uses the same image: a destroy must not cost another 20 GB.
            keep_locally=True,
            opts=ResourceOptions(
                parent=self,
                provider=spark.provider,
                custom_timeouts=pulumi.CustomTimeouts(create=PULL_LIMIT, update=PULL_LIMIT),
            ),
        ).image_id

    def _with_ray(self, name: str, step: Step, args: EngineImageArgs, bases: Output[dict[str, str]]) -> Output[str]:
        base = bases[step.node]
        return (
            args.sparks[step.node]
            .run(name, step, ResourceOptions(parent=self), more={"image": base}, triggers=(base,))
            .stdout
        )


def one_image(name: str, ids: Mapping[str, str]) -> dict[str, str]:
    """Refuses Sparks whose tag stands for different images."""
    if len(set(ids.values())) > 1:
        found = "\n".join(f"  {node}: {image}" for node, image in ids.items())
        raise pulumi.RunError(
            f"{name} is a different image on each Spark:\n{found}\n"
            f"  → remove it where it is old (`docker image rm {name}`) and run `pulumi up` again"
        )
    return dict(ids)


def one_ray(answers: Mapping[str, str]) -> dict[str, str]:
    """Node → image id, from the steps' JSON. Refuses Sparks whose images have different versions of Ray."""
    made = {node: json.loads(answer) for node, answer in answers.items()}
    if len({answer["ray"] for answer in made.values()}) > 1:
        found = "\n".join(f"  {node}: Ray {answer['ray']} in {answer['image']}" for node, answer in made.items())
        raise pulumi.RunError(f"Ray must be the same on every Spark:\n{found}\n  → use one image on all of them")
    return {node: answer["image"] for node, answer in made.items()}
