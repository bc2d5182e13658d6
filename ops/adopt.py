"""`./spark adopt`: an `up` that takes over what runs as it is wanted, where Pulumi's state was lost."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from components.programs import adopting
from ops.project import Confirm
from ops.pulumi import CommandError
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)


def adopt(cluster: Stack, confirm: Confirm) -> bool:
    """True: the state knows all that is wanted. Raises CommandError where the preview is refused."""
    where = cluster.where
    with tempfile.TemporaryDirectory(prefix="spark-adopt-") as folder:
        base = Path(folder)
        more = adopting.environment(base, where.env.get("PATH", os.defpath), sys.executable)
        ours = replace(where, env={**where.env, **more})
        if ours.run("preview", "--stack", cluster.stack):
            raise CommandError("nothing was changed (see above)")
        if not confirm("Take over what runs as it is wanted, and make the rest?"):
            return False
        done = ours.up(cluster.stack)
        for node, name, found in adopting.noted(base):
            console.print(f"[bold]·[/bold] {node}: {told(name, found)}")
        return done


def told(name: str, found: Any) -> str:
    """What became of a container that was there. `found`: answer of scripts/clear.py."""
    if found["id"]:
        return f"{name} was taken over as it runs"
    return f"{name} was made anew, since it was not as it is wanted in: {', '.join(found['differs'])}"
