"""`./spark prune`: take away revisions of models that no stack uses any more."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from components.scripts.contracts import Prune, Revision
from ops.project import Confirm
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)


def unused(cluster: Stack, models: list[str]) -> dict[str, list[Revision]]:
    """Node → revisions that no stack on that Spark uses; only those of `models` (repositories) where some are named."""
    given = {name: Prune(cache=cache, remove=[]) for name, cache in cluster.caches().items()}
    return {
        node: [row for row in rows if not row["used_by"] and (not models or row["repo"] in models)]
        for node, rows in cluster.ask("prune.py", given, limit=120).items()
    }


def prune(cluster: Stack, models: list[str], confirm: Confirm, *, as_json: bool, dry_run: bool) -> None:
    found = unused(cluster, models)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    if dry_run or not any(found.values()):
        return
    if not confirm("Remove them? Models that somebody uses beside these stacks are in the list, too."):
        return
    caches = cluster.caches()
    given = {
        node: Prune(cache=caches[node], remove=[(row["repo"], row["commit"]) for row in rows])
        for node, rows in found.items()
    }
    cluster.ask("prune.py", given, limit=600)
    freed = sum(row["bytes"] for rows in found.values() for row in rows)
    if not as_json:
        console.print(f"[bold]·[/bold] {freed / 1e9:.1f} GB freed")


def show(found: dict[str, list[Revision]]) -> None:
    if not any(found.values()):
        console.print("[bold]·[/bold] every revision in the caches is in use")
        return
    table = Table(title="In use by no stack", title_justify="left")
    for heading in ("Spark", "Model", "Revision", "GB"):
        table.add_column(heading, justify="right" if heading == "GB" else "left", overflow="fold")
    for node, rows in found.items():
        for row in rows:
            table.add_row(node, row["repo"], row["commit"][:12] or "interrupted", f"{row['bytes'] / 1e9:.1f}")
    console.print(table)
