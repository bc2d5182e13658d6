"""Ray on every Spark: the layer that places vLLM's ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import Ray, Step
from components.resources import container
from components.resources.access import SparkAccess
from components.scripts.contracts import RayFormed

FORMING_LIMIT = 180
"""Seconds for all Sparks to join. About 11 when all start; up to 60 after the head alone was replaced."""


@dataclass(frozen=True)
class RayClusterArgs:
    ray: Ray
    images: Mapping[str, Output[str]]
    sparks: Mapping[str, SparkAccess]
    needs: Sequence[Resource]


class RayCluster(ComponentResource):
    """Head and workers, each with `ray start --block` as its main process; whole when this component is done."""

    containers: dict[str, Output[str]]
    """Node → id of its Ray container."""

    def __init__(self, name: str, args: RayClusterArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:ray:RayCluster", name, {"port": args.ray.port}, opts)
        head = args.ray.head
        needs = ResourceOptions(parent=self, depends_on=list(args.needs))
        volume = docker.Volume(
            f"{name}-session",
            name=args.ray.volume,
            labels=[docker.VolumeLabelArgs(label="dgx-spark.stack", value=args.sparks[head.node].stack)],
            opts=ResourceOptions(
                parent=self,
                provider=args.sparks[head.node].provider,
                depends_on=list(args.needs),
                # One without a label, of a former version, is in use.
                ignore_changes=["labels"],
            ),
        )
        with_volume = ResourceOptions(parent=self, depends_on=[*args.needs, volume])
        made = {
            head.node: container.run(f"{name}-head", head, args.images[head.node], args.sparks[head.node], with_volume)
        }
        for worker in args.ray.workers:
            made[worker.node] = container.run(
                f"{name}-{worker.node}", worker, args.images[worker.node], args.sparks[worker.node], needs
            )
        self.containers = {node: resource.id for node, resource in made.items()}
        self._await(name, args, [resource.id for resource in made.values()])
        self.register_outputs({"containers": self.containers})

    def _await(self, name: str, args: RayClusterArgs, ids: Sequence[Output[str]]) -> None:
        spark = args.sparks[args.ray.head.node]
        inputs = RayFormed(
            stack=spark.stack,
            head=args.ray.head.name,
            addresses=list(args.ray.addresses),
            port=args.ray.port,
            wait=FORMING_LIMIT,
        )
        step = Step(args.ray.head.node, "ray", "ray_formed.py", inputs, (), FORMING_LIMIT + 90)
        spark.run(f"{name}-formed", step, ResourceOptions(parent=self), triggers=tuple(ids), remove=False)
