"""Docker Swarm over the Sparks, with each GPU as a resource that a service can reserve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import Swarm
from components.resources.access import SparkAccess


@dataclass(frozen=True)
class SwarmClusterArgs:
    swarm: Swarm
    sparks: Mapping[str, SparkAccess]
    needs: Sequence[Resource]
    """In place before Docker is restarted, which stops what runs."""


class SwarmCluster(ComponentResource):
    """Docker's settings on every Spark, then the head as manager, the others as workers, then all whole.

    Joined by the Ethernet addresses and known by node ids, since a Spark that joins again leaves a stale node with
    its host name behind. Docker's settings stay until the stack is destroyed (scripts/node.py).
    """

    nodes: dict[str, Output[str]]
    """Node → its id in the Swarm, known when the Swarm is whole."""

    def __init__(self, name: str, args: SwarmClusterArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:swarm:SwarmCluster", name, {}, opts)
        sparks, swarm = args.sparks, args.swarm
        after = ResourceOptions(parent=self, depends_on=list(args.needs))
        hosts: list[Resource] = [
            sparks[step.node].run(f"{name}-host-{step.node}", step, after, remove=False) for step in swarm.hosts
        ]
        head = swarm.manager.node
        child = ResourceOptions(parent=self, depends_on=hosts)
        manager = sparks[head].run(f"{name}-manager", swarm.manager, child, secret=True).stdout
        joined = {
            step.node: sparks[step.node].run(f"{name}-{step.node}", step, child, outputs={"manager": manager}).stdout
            for step in swarm.workers
        }
        ids: dict[str, Output[str]] = {
            head: Output.unsecret(manager.apply(lambda text: str(json.loads(text)["node"]))),
            **joined,
        }
        whole = sparks[head].run(f"{name}-members", swarm.members, ResourceOptions(parent=self), outputs={"nodes": ids})
        self.nodes = {node: Output.all(id_, whole.stdout).apply(lambda both: str(both[0])) for node, id_ in ids.items()}
        self.register_outputs({})
