"""The stack's outputs: what a user or another program needs once the model answers.

Only values that an unchanged cluster repeats exactly: anything that moves by itself would make every
preview show a difference.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pulumi

from components.plan import beside
from components.plan.values import Plan, content, digest
from components.remote import ssh
from components.resources.cluster import Cluster
from components.settings import Settings

README = Path(__file__).parents[2] / "Pulumi.README.md"


def export(cluster: Cluster, settings: Settings) -> None:
    plan = cluster.plan
    pulumi.export("stack", plan.identity.full)
    pulumi.export("api_base", plan.api_base)
    pulumi.export("model", plan.served_name)
    pulumi.export("revision", plan.model.commit)
    pulumi.export("engine", settings.engine)
    # Tells one way of serving from another, for whoever compares figures (ops/bench.py).
    pulumi.export("configuration", digest([content(rank) for rank in plan.ranks]))
    pulumi.export("nodes", nodes(plan, settings))
    pulumi.export("image", cluster.image_id)
    pulumi.export("dashboard", dashboard(plan, settings))
    pulumi.export("beside", beside.links(settings))
    pulumi.export("example", example(plan, settings))
    pulumi.export("logs", logs(plan, settings))
    # Read by the Pulumi console, which puts the other outputs into it.
    pulumi.export("readme", README.read_text())


def nodes(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Per Spark: its rank, its place on the fabric and the environment of its rank."""
    return {
        node.name: {
            "rank": rank,
            "host": node.host,
            "fabric": asdict(plan.links[node.name]) if node.name in plan.links else None,
            "environment": dict(plan.environment[node.name]),
        }
        for rank, node in enumerate(settings.nodes)
    }


def dashboard(plan: Plan, settings: Settings) -> str | None:
    """Ray's dashboard; bound to the head's loopback by default, so by way of an SSH tunnel."""
    if plan.ray is None:
        return None
    if settings.ray.dashboard_host != "127.0.0.1":
        return plan.ray.dashboard
    port = settings.ray.dashboard_port
    login = ssh.by_hand(settings.head, settings.ssh).removeprefix("ssh ")
    return f"{plan.ray.dashboard} after: ssh -N -L {port}:127.0.0.1:{port} {login}"


def example(plan: Plan, settings: Settings) -> str:
    body = {"model": plan.served_name, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}
    key = " -H 'Authorization: Bearer YOUR_KEY'" if settings.api_key.get_secret_value() else ""
    data = shlex.quote(json.dumps(body))
    return f"curl {plan.api_base}/chat/completions{key} -H 'Content-Type: application/json' -d {data}"


def logs(plan: Plan, settings: Settings) -> dict[str, str]:
    """Container → the command that follows its log."""
    where = {node.name: ssh.by_hand(node, settings.ssh) for node in settings.nodes}
    if plan.swarm:
        manager = where[settings.head.name]
        return {f"{c.node}/{c.name}": f"{manager} docker service logs --raw -f {c.name}-{c.node}" for c in plan.ranks}
    every = [*plan.ranks, *((plan.ray.head, *plan.ray.workers) if plan.ray else ())]
    return {f"{c.node}/{c.name}": f"{where[c.node]} docker logs -f {c.name}" for c in every}
