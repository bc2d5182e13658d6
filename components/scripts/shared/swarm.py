"""This Spark as a node of a Swarm."""

from __future__ import annotations

import subprocess

from .docker import Docker
from .records import read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Record


SWARM_BRIDGE = "docker_gwbridge"
"""Network that Docker makes when a node enters a Swarm, and keeps when it leaves."""


def has_swarm_bridge() -> bool:
    return Docker().get(f"/networks/{SWARM_BRIDGE}") is not None


def leave_swarm(wanted: Record, *words: str) -> None:
    """Leave the Swarm if this stack joined it, and take away the bridge that Docker made for it."""
    record = read_record(wanted)
    if not record.get("made"):
        return
    # Fails where somebody has left it already.
    subprocess.run(["docker", "swarm", "leave", *words], capture_output=True)
    if not record["bridge"]:
        subprocess.run(["docker", "network", "rm", SWARM_BRIDGE], capture_output=True)
