"""The RoCE link between the Sparks, confirmed and measured at the moment of the change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import ComponentResource, Resource, ResourceOptions
from pulumi_command import local

from components import programs
from components.plan import orders
from components.plan.values import Qualification, Step
from components.resources.access import SparkAccess
from components.settings import Settings

MODULE = "components.programs.qualification"
"""Standard library only, so any Python 3.10+ on PATH runs it, from the project's directory."""


@dataclass(frozen=True)
class FabricArgs:
    steps: Sequence[Step]
    qualification: Qualification | None
    settings: Settings
    sparks: Mapping[str, SparkAccess]
    needs: Sequence[Resource]
    """The Sparks taken for this stack."""


class Fabric(ComponentResource):
    """A gate: nothing that needs the link starts before every Spark has found it as planned, and fast enough.

    Each Spark checks its devices, GID, address and MTU, and that every other one answers; with each
    looking at all the others, both directions are covered. Then bandwidth is measured, each way.
    """

    def __init__(self, name: str, args: FabricArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:fabric:Fabric", name, {}, opts)
        after = ResourceOptions(parent=self, depends_on=list(args.needs))
        confirmed: list[Resource] = [
            args.sparks[step.node].run(f"{name}-{step.node}", step, after) for step in args.steps
        ]
        if args.qualification is not None:
            local.Command(
                f"{name}-bandwidth",
                create=programs.command(MODULE),
                stdin=json.dumps(orders.qualification(args.settings, args.qualification)),
                triggers=list(args.qualification.triggers),
                add_previous_output_in_env=False,
                opts=ResourceOptions(parent=self, depends_on=confirmed),
            )
        self.register_outputs({})
