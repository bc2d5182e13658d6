"""The OpenAI-compatible endpoint: there when the model has answered, not when a port is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import ComponentResource, Input, Output, ResourceOptions
from pulumi_command import local

from components import spark_scripts, ssh
from components.plan import Readiness
from components.settings import Settings

COMMAND = "python3 -m components.readiness"
"""Standard library only, so any Python 3.10+ on PATH runs it, from the project's directory."""


LAST_LINES = 40
"""Of each log, shown when the endpoint fails: an engine's traceback is often longer than 20."""


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
        local.Command(
            f"{name}-ready",
            create=COMMAND,
            stdin=Output.json_dumps(self._order(args, Output.secret(key) if key else "")),
            triggers=[*args.ranks, args.generation],
            add_previous_output_in_env=False,
            opts=ResourceOptions(
                parent=self,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{args.readiness.timeout + 300}s"),
            ),
        )
        self.register_outputs({"apiBase": args.api_base})

    @staticmethod
    def _order(args: EndpointArgs, key: Input[str]) -> Mapping[str, Any]:
        settings, readiness = args.settings, args.readiness
        head = settings.head.name
        record = {"stack": args.stack, "kind": "endpoint", "spec": "", "generation": args.generation}
        api = {
            "api": f"http://{settings.serving.local_host}:{readiness.port}/v1",
            "model": readiness.model,
            "key": key,
            "record": record,
        }
        return {
            "stack": args.stack.rsplit("/", 1)[-1],
            "timeout": readiness.timeout,
            "rdma": settings.fabric.rdma,
            # TensorRT-LLM's ranks all speak through the head's.
            "ranks": [
                node.name
                for node in settings.nodes
                if len(settings.nodes) > 1
                and "server" in readiness.containers[node.name]
                and (node is settings.head or settings.engine != "trtllm")
            ],
            "watches": [
                {
                    "node": node.name,
                    "argv": [
                        *ssh.argv(node, settings.ssh),
                        spark_scripts.command("watch.py", "apply", limit=readiness.timeout + 120),
                    ],
                    "parcel": spark_scripts.parcel(
                        "watch.py",
                        {
                            "stack": args.stack,
                            "components": list(readiness.containers[node.name]),
                            "lines": LAST_LINES,
                            "several": len(settings.nodes) > 1,
                            **(api if node.name == head else {}),
                        },
                    ),
                }
                for node in settings.nodes
            ],
        }
