"""The engine's server: one container or Swarm service per rank, so logs, restarts and exit codes are Docker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import RANK_KEY, Container, Identity, Step, content, digest
from components.resources import container, service
from components.resources.access import SparkAccess


@dataclass(frozen=True)
class InferenceServerArgs:
    identity: Identity
    ranks: Sequence[Container]
    """The one that serves HTTP first."""

    images: Mapping[str, Output[str]]
    sparks: Mapping[str, SparkAccess]
    ray: Mapping[str, Output[str]]
    """Node → its Ray container; a server outlives none of them. Empty: the ranks find each other without Ray."""

    swarm: Mapping[str, Output[str]]
    """Node → its id in the Swarm. Empty: the ranks are plain containers."""

    rank_key: Step | None
    api_key_path: str
    api_key_file: str
    """Content of the file with the API's key; '' for an open API."""

    taken: Sequence[Resource]
    """What takes the Sparks for this stack: enough for the ranks' key."""

    needs: Sequence[Resource]
    """Weights in place, Ray or Swarm whole and room made, before a server that runs is stopped for this one."""


class InferenceServer(ComponentResource):
    """One container per rank, or the driver alone where the ranks run in Ray's containers."""

    ids: list[Output[str]]
    """Change whenever a rank is made anew or altered; the one that serves HTTP first."""

    def __init__(self, name: str, args: InferenceServerArgs, opts: ResourceOptions | None = None) -> None:
        first, *_ = args.ranks
        super().__init__(
            "dgx-spark:server:InferenceServer",
            name,
            {"command": [container.hidden(first, word) for word in first.command]},
            opts,
        )
        self._name, self._args = name, args
        self._ready = ResourceOptions(parent=self, depends_on=list(args.needs))
        secrets = self._secrets()
        self.ids = self._services(secrets) if args.swarm else self._containers(secrets)
        self.register_outputs({})

    def _secrets(self) -> dict[str, Output[str]]:
        """Files of every rank."""
        step = self._args.rank_key
        if step is None:
            return {}
        # To run it again, for whatever reason, would make another key, and all ranks anew.
        once = ResourceOptions(parent=self, depends_on=list(self._args.taken), ignore_changes=["create", "stdin"])
        return {
            RANK_KEY: self._args.sparks[step.node]
            .run(f"{self._name}-key", step, once, remove=False, secret=True)
            # The provider takes the last line's end away, without which ssh reads no key.
            .stdout.apply(lambda text: f"{text.rstrip()}\n")
        }

    def _containers(self, secrets: Mapping[str, Output[str]]) -> list[Output[str]]:
        args = self._args
        return [
            container.run(
                f"{self._name}-{rank.node}",
                rank,
                args.images[rank.node],
                args.sparks[rank.node],
                self._ready,
                stands_on={f"dgx-spark.stands-on.{node}": id_ for node, id_ in args.ray.items()},
                pid_mode=self._pid_mode(rank),
                secret_files={**secrets, **(self._api_key() if rank is args.ranks[0] else {})},
            ).id
            for rank in args.ranks
        ]

    def _services(self, secrets: Mapping[str, Output[str]]) -> list[Output[str]]:
        args = self._args
        manager = args.sparks[args.ranks[0].node]
        files = service.files(self._name, args.identity, args.ranks, secrets, manager, self._ready)
        made = {
            rank.node: service.run(
                f"{self._name}-{rank.node}",
                rank,
                args.images[rank.node],
                args.swarm[rank.node],
                files,
                manager,
                self._ready,
            )
            for rank in args.ranks
        }
        # A service keeps its id when it is altered.
        return [
            Output.concat(made[rank.node].id, " ", digest(content(rank)), " ", args.images[rank.node])
            for rank in args.ranks
        ]

    def _api_key(self) -> dict[str, Output[str]]:
        return {self._args.api_key_path: Output.secret(self._args.api_key_file)} if self._args.api_key_file else {}

    def _pid_mode(self, rank: Container) -> Output[str] | None:
        """Ray's driver finds its raylet by looking through the processes (Ray 2.55, find_node_ids), so it must
        see those of the Ray container beside it."""
        beside = self._args.ray.get(rank.node)
        return Output.concat("container:", beside) if beside is not None else None
