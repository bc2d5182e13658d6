"""The stack's outputs: what a user or another program needs once the model answers.

Their names and types are a promise to programs that read them (docs/operations.md), which tests/program/test_outputs.py
keeps. Only values that an unchanged cluster repeats exactly: anything that moves by itself would make every
preview show a difference.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
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
    key = settings.api_key.get_secret_value()
    shown = {
        "stack": plan.identity.full,
        "api_base": plan.api_base,
        "health": f"{plan.api_base.removesuffix('/v1')}/health",
        "model": plan.served_name,
        "revision": plan.model.commit,
        "engine": settings.engine,
        # Tells one way of serving from another, for whoever compares figures (ops/bench.py).
        "configuration": digest([content(rank) for rank in plan.ranks]),
        "nodes": nodes(plan, settings),
        "dashboard": dashboard(plan, settings),
        "beside": beside.links(settings),
        "example": example(plan, settings),
    }
    for name, value in shown.items():
        pulumi.export(name, value)
    pulumi.export("image", cluster.image_id)
    # There in any case: another program that reads it would fail where it is missing.
    pulumi.export("api_key", pulumi.Output.secret(key))
    # The Pulumi console shows it. Filled in here, since `pulumi stack output` shows it as it is.
    pulumi.export("readme", readme(shown))


def readme(shown: Mapping[str, Any]) -> str:
    """Pulumi.README.md with the outputs' values in place of ${outputs.NAME}."""
    return re.sub(r"\$\{outputs\.(\w+)\}", lambda found: str(shown[found[1]] or "none"), README.read_text())


def nodes(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Per Spark: its rank, its host and, with several, its place on the fabric."""
    links = {name: asdict(link) for name, link in plan.links.items()}
    return {
        node.name: {"rank": rank, "host": node.host}
        | {key: links[node.name][key] for key in ("interface", "address", "hcas") if node.name in links}
        for rank, node in enumerate(settings.nodes)
    }


def dashboard(plan: Plan, settings: Settings) -> str | None:
    """Ray's dashboard, where it is wanted; bound to the head's loopback by default, so by way of an SSH tunnel."""
    if plan.ray is None or plan.ray.dashboard is None:
        return None
    if settings.ray.dashboard_host != "127.0.0.1":
        return plan.ray.dashboard
    port = settings.ray.dashboard_port
    login = ssh.by_hand(settings.head, settings.ssh).removeprefix("ssh ")
    return f"{plan.ray.dashboard} after: ssh -N -L {port}:127.0.0.1:{port} {login}"


EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("chat/completions", {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}),
    "embed": ("embeddings", {"input": "Hello."}),
    "score": ("rerank", {"query": "Who says hello?", "documents": ["Hello.", "Goodbye."]}),
}
"""What a model is for → what can be asked, and where."""


def example(plan: Plan, settings: Settings) -> str:
    path, asked = EXAMPLES[plan.readiness.task]
    body = {"model": plan.served_name, **asked}
    key = " -H 'Authorization: Bearer YOUR_KEY'" if settings.api_key.get_secret_value() else ""
    data = shlex.quote(json.dumps(body))
    return f"curl {plan.api_base}/{path}{key} -H 'Content-Type: application/json' -d {data}"
