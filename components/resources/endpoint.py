"""The OpenAI-compatible endpoint: there when the model has answered, not when a port is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi import ComponentResource, Input, Output, ResourceOptions
from pulumi_command import local

from components import programs
from components.plan import orders
from components.plan.values import Readiness
from components.settings import Settings

MODULE = "components.programs.readiness"
"""Standard library only, so any Python 3.10+ on PATH runs it, from the project's directory."""


@dataclass(frozen=True)
class EndpointArgs:
    settings: Settings
    readiness: Readiness
    api_base: str
    ranks: Sequence[Input[str]]
    """Ids of the server's containers: new ones must prove themselves."""

    generation: str
    stack: str


class Endpoint(ComponentResource):
    """Ready means: /health answers, /v1/models names the model, and a real completion has come back."""

    def __init__(self, name: str, args: EndpointArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:endpoint:Endpoint", name, {"apiBase": args.api_base}, opts)
        key = args.settings.api_key.get_secret_value()
        order = orders.readiness(
            args.settings, args.readiness, args.stack, args.generation, Output.secret(key) if key else ""
        )
        local.Command(
            f"{name}-ready",
            create=programs.command(MODULE),
            stdin=Output.json_dumps(order),
            triggers=[*args.ranks, args.generation],
            add_previous_output_in_env=False,
            opts=ResourceOptions(
                parent=self,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{args.readiness.timeout + 300}s"),
            ),
        )
        self.register_outputs({"apiBase": args.api_base})
