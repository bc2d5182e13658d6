"""`./spark destroy`: `pulumi destroy`, and what that alone can't do: with a Spark switched off, or the state lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from components.remote import parcel, ssh
from components.scripts.contracts import Lease, Record
from components.settings import Node
from ops import pulumi
from ops.project import Confirm
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)

LIMIT = 300
"""Seconds for one Spark to be handed back."""


def destroy(cluster: Stack, confirm: Confirm) -> bool:
    """True: nothing of the stack is left anywhere."""
    facts, problems = cluster.facts()
    away = [node.name for node in cluster.settings.nodes if node.name not in facts]
    for problem in problems:
        console.print(f"[bold]·[/bold] {problem}")
    kept = known(cluster)
    for name in away:
        console.print(f"[bold]·[/bold] {stays(name, kept.get(name, []))}")
    question = f"Take all of {cluster.stack} away" + (f", but for what is on {', '.join(away)}?" if away else "?")
    if not confirm(question):
        return False
    words = ["--refresh=false", "--continue-on-error"] if away else []
    done = cluster.where.run("destroy", "--yes", "--skip-preview", *words, "--stack", cluster.stack) == 0
    # Where Pulumi did not get that far (the stack is locked, a resource is protected), nothing else is done either.
    left = known(cluster)
    swept = sweep(cluster, [node for node in cluster.settings.nodes if node.name in facts and not left.get(node.name)])
    for name, words_ in swept.items():
        console.print(f"[bold]·[/bold] {name}: {words_}")
    if away:
        console.print(
            f"[bold]·[/bold] {', '.join(away)}: when it is back, ./spark destroy again takes the rest away. If it "
            "never comes back, pulumi stack rm --force forgets it"
        )
    return done and not away and not swept


def known(cluster: Stack) -> dict[str, list[str]]:
    """Node → names of what the state has in that Spark's Docker, images left out: they stay in any case."""
    exported = json.loads(
        pulumi.output(["stack", "export", "--stack", cluster.stack], cluster.where.env, cluster.where.folder)
    )
    return in_docker(exported["deployment"].get("resources") or [])


def in_docker(resources: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The same of a deployment's resources. A Spark's Docker provider is NODE-docker (resources/spark_node.py)."""
    found: dict[str, list[str]] = {}
    for resource in resources:
        provider = str(resource.get("provider", "")).rsplit("::", 2)
        name = (resource.get("inputs") or {}).get("name")
        if len(provider) == 3 and provider[1].endswith("-docker") and "remoteImage" not in resource["type"]:
            found.setdefault(provider[1].removesuffix("-docker"), []).append(str(name))
    return {node: sorted(names) for node, names in found.items()}


def stays(node: str, names: Sequence[str]) -> str:
    """What a Spark that is away keeps."""
    things = ", ".join(names) or "nothing in Docker that the state knows"
    return f"{node} keeps, until it is back: {things}; and the stack's lease, keys and records"


def sweep(cluster: Stack, nodes: Sequence[Node]) -> dict[str, str]:
    """Hand these Sparks back, whatever the state knew of them; node → why that failed."""

    def one(node: Node) -> str:
        record = Record(stack=cluster.identity, kind="node", spec="", generation="")
        cache = cluster.caches()[node.name]
        inputs = Lease(stack=cluster.identity, node=node.name, cache=cache, takeover=False, laid=record, record=record)
        done = subprocess.run(
            [*ssh.argv(node, cluster.settings.ssh), parcel.command("node.py", "remove", limit=LIMIT)],
            input=json.dumps(parcel.pack_all(inputs)),
            capture_output=True,
            text=True,
        )
        return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""

    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        answers = dict(zip([node.name for node in nodes], pool.map(one, nodes), strict=True))
    return {name: why for name, why in answers.items() if why}
