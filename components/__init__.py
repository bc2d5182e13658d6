"""What Pulumi converges: settings → plan → components, in the order of docs/architecture.md.

For a program of one's own: `from components import cluster` (examples/automation/job.py).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.building import cluster, converge
    from components.problems import Refused
    from components.resources.cluster import Cluster
    from components.settings import Settings, load

__all__ = ["Cluster", "Refused", "Settings", "cluster", "converge", "load"]

HOMES = {
    "Cluster": "components.resources.cluster",
    "Refused": "components.problems",
    "Settings": "components.settings",
    "cluster": "components.building",
    "converge": "components.building",
    "load": "components.settings",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: a preview pays for none, and programs/ has no Pulumi."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
