"""The engine's server: its container's main process, so logs, restarts and exit codes are Docker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components import container
from components.access import SparkAccess
from components.engines.vllm import API_KEY_FILE
from components.plan import Container


@dataclass(frozen=True)
class InferenceServerArgs:
    server: Container
    image: Output[str]
    spark: SparkAccess
    stands_on: Mapping[str, Output[str]]
    """Node → its Ray container: a server outlives none of them."""

    api_key: str
    """'' for an open API."""

    needs: Sequence[Resource]
    """Weights in place and Ray whole, before a server that runs is stopped for this one."""


class InferenceServer(ComponentResource):
    """vLLM's API server and driver on the head; its ranks run in the Ray containers where there are several."""

    container: docker.Container

    def __init__(self, name: str, args: InferenceServerArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:server:InferenceServer", name, {"command": list(args.server.command)}, opts)
        secret = {API_KEY_FILE: Output.secret(args.api_key)} if args.api_key else {}
        self.container = container.run(
            f"{name}-{args.server.node}",
            args.server,
            args.image,
            args.spark,
            ResourceOptions(parent=self, depends_on=list(args.needs)),
            stands_on={f"dgx-spark.stands-on.{node}": id_ for node, id_ in args.stands_on.items()},
            pid_mode=self._pid_mode(args),
            secret_files=secret,
        )
        self.register_outputs({})

    @staticmethod
    def _pid_mode(args: InferenceServerArgs) -> Output[str] | None:
        """Ray's driver finds its raylet by looking through the processes (Ray 2.55, find_node_ids), so it must
        see those of the Ray container beside it."""
        beside = args.stands_on.get(args.server.node)
        return Output.concat("container:", beside) if beside is not None else None
