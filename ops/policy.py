"""`./spark policy`: the rules of policy/ over a preview, where there are no policy packs: without the Pulumi CLI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from ops import pulumi
from ops.project import Project
from policy.rules import Rule, violations

console = Console(highlight=False, soft_wrap=True)


def examine(where: Project, stack: str) -> list[tuple[str, Rule, str]]:
    """(resource, rule, what is wrong). Raises CommandError where the preview is refused."""
    # What stays as it is has to keep the rules, too.
    words = ["preview", "--json", "--show-sames", "--stack", stack]
    return list(found(json.loads(pulumi.output(words, where.env, where.folder))))


def found(preview: Mapping[str, Any]) -> Iterator[tuple[str, Rule, str]]:
    """In what `pulumi preview --json` prints; what goes is not judged."""
    for step in preview["steps"]:
        state = step.get("newState")
        if state:
            for rule, text in violations(state["type"], state.get("inputs") or {}):
                yield state["urn"].rsplit("::", 1)[1], rule, text


def show(broken: list[tuple[str, Rule, str]]) -> bool:
    """True: nothing mandatory is broken."""
    for name, rule, text in broken:
        console.print(f"[bold]{'·' if rule.mandatory else '(advice)'}[/bold] {rule.name}: {name} {text}")
    if not broken:
        console.print("[bold]·[/bold] every rule of policy/ is kept")
    return not any(rule.mandatory for _, rule, _ in broken)
