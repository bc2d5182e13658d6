"""What every Spark is asked: the probe's targets, from settings. Pure."""

from __future__ import annotations

from typing import Any

from components import spark_scripts, ssh, steps
from components.checks import on_swarm
from components.engines.registry import image_name
from components.settings import Settings

LIMIT = 50
"""Seconds after which a Spark's probe ends itself."""


def targets(settings: Settings, stack: str) -> list[dict[str, Any]]:
    """For components/probe.py, one per Spark. `stack`: ORG/PROJECT/STACK."""
    return [
        {
            "name": node.name,
            "argv": [*ssh.argv(node, settings.ssh), spark_scripts.command("probe.py", "apply", limit=LIMIT)],
            "stdin": spark_scripts.text(
                "probe.py",
                {
                    "stack": stack,
                    "cache": node.cache or settings.weights.cache,
                    "repos": [steps.repository(settings), *steps.staged_repositories(settings)],
                    "look": steps.look(settings),
                    "images": [image_name(settings)],
                    "sudo": on_swarm(settings),
                },
            ),
        }
        for node in settings.nodes
    ]
