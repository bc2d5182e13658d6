"""`./spark prune`: take away revisions of models that no stack uses any more, and what engines compiled for them."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from components.scripts.contracts import Prune, Pruned
from ops.project import Confirm
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)


def unused(cluster: Stack, models: list[str]) -> dict[str, Pruned]:
    """Node → what no stack on that Spark uses; only of `models` (repositories) where some are named."""
    inputs = {name: Prune(cache=cache, remove=[], volumes=[]) for name, cache in cluster.caches().items()}

    def wanted(used_by: list[str], repo: str) -> bool:
        return not used_by and (not models or repo in models)

    answers: dict[str, Pruned] = cluster.ask("prune.py", inputs, limit=120)
    return {
        node: {
            "revisions": [row for row in found["revisions"] if wanted(row["used_by"], row["repo"])],
            "compiled": [row for row in found["compiled"] if wanted(row["used_by"], row["repo"])],
        }
        for node, found in answers.items()
    }


def prune(cluster: Stack, models: list[str], confirm: Confirm, *, as_json: bool, dry_run: bool) -> None:
    found = unused(cluster, models)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    if dry_run or not any(rows for about in found.values() for rows in about.values()):
        return
    if not confirm("Remove them? Models that somebody uses beside these stacks are in the list, too."):
        return
    caches = cluster.caches()
    inputs = {
        node: Prune(
            cache=caches[node],
            remove=[(row["repo"], row["commit"]) for row in about["revisions"]],
            volumes=[row["volume"] for row in about["compiled"]],
        )
        for node, about in found.items()
    }
    cluster.ask("prune.py", inputs, limit=600)
    freed = sum(row["bytes"] for about in found.values() for row in (*about["revisions"], *about["compiled"]))
    if not as_json:
        console.print(f"[bold]·[/bold] {freed / 1e9:.1f} GB freed")


def show(found: dict[str, Pruned]) -> None:
    table = Table(title="In use by no stack", title_justify="left")
    for heading in ("Spark", "Model", "Revision", "GB"):
        table.add_column(heading, justify="right" if heading == "GB" else "left", overflow="fold")
    for node, about in found.items():
        for row in about["revisions"]:
            table.add_row(node, row["repo"], row["commit"][:12] or "interrupted", f"{row['bytes'] / 1e9:.1f}")
        for one in about["compiled"]:
            table.add_row(node, one["repo"], "compiled", f"{one['bytes'] / 1e9:.1f}")
    if not table.row_count:
        console.print("[bold]·[/bold] every revision in the caches is in use")
        return
    console.print(table)
