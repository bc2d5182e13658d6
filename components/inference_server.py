"""The engine's server: each rank its container's main process, so logs, restarts and exit codes are Docker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components import container
from components.access import SparkAccess
from components.plan import Container

API_KEY_PATH = "/run/api-key"
"""Where rank 0 finds the API's key (engines.Context.api_key_file)."""


@dataclass(frozen=True)
class InferenceServerArgs:
    ranks: Sequence[Container]
    """The one that serves HTTP first."""

    images: Mapping[str, Output[str]]
    sparks: Mapping[str, SparkAccess]
    ray: Mapping[str, Output[str]]
    """Node → its Ray container; a server outlives none of them. Empty: the ranks find each other without Ray."""

    api_key_file: str
    """Content of the file with the API's key; '' for an open API."""

    needs: Sequence[Resource]
    """Weights in place and Ray whole, before a server that runs is stopped for this one."""


class InferenceServer(ComponentResource):
    """One container per rank, or the driver alone where the ranks run in Ray's containers."""

    ids: list[Output[str]]
    """Of the containers, the one that serves HTTP first."""

    def __init__(self, name: str, args: InferenceServerArgs, opts: ResourceOptions | None = None) -> None:
        first, *others = args.ranks
        super().__init__("dgx-spark:server:InferenceServer", name, {"command": list(first.command)}, opts)
        secret = {API_KEY_PATH: Output.secret(args.api_key_file)} if args.api_key_file else {}
        self.ids = [
            self._run(name, first, args, secret).id,
            *(self._run(name, rank, args, {}).id for rank in others),
        ]
        self.register_outputs({})

    def _run(
        self,
        name: str,
        rank: Container,
        args: InferenceServerArgs,
        secret: Mapping[str, Output[str]],
    ) -> docker.Container:
        return container.run(
            f"{name}-{rank.node}",
            rank,
            args.images[rank.node],
            args.sparks[rank.node],
            ResourceOptions(parent=self, depends_on=list(args.needs)),
            stands_on={f"dgx-spark.stands-on.{node}": id_ for node, id_ in args.ray.items()},
            pid_mode=self._pid_mode(args, rank),
            secret_files=secret,
        )

    @staticmethod
    def _pid_mode(args: InferenceServerArgs, rank: Container) -> Output[str] | None:
        """Ray's driver finds its raylet by looking through the processes (Ray 2.55, find_node_ids), so it must
        see those of the Ray container beside it."""
        beside = args.ray.get(rank.node)
        return Output.concat("container:", beside) if beside is not None else None
