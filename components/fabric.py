"""The RoCE link between the Sparks, confirmed at the moment of the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import ComponentResource, ResourceOptions

from components.access import SparkAccess
from components.plan import Step


@dataclass(frozen=True)
class FabricArgs:
    steps: Sequence[Step]
    sparks: Mapping[str, SparkAccess]


class Fabric(ComponentResource):
    """A gate: nothing that needs the link starts before every Spark has found it as planned.

    Each Spark checks its devices, GID, address and MTU, and that every other one answers; with each
    looking at all the others, both directions are covered.
    """

    def __init__(self, name: str, args: FabricArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:fabric:Fabric", name, {}, opts)
        for step in args.steps:
            args.sparks[step.node].run(f"{name}-{step.node}", step, ResourceOptions(parent=self))
        self.register_outputs({})
