"""How long servers took to start, remembered per configuration on the machine that runs Pulumi. Standard library only.

The same configuration starts alike, and another one may compile for minutes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Startup = dict[str, Any]
"""As scripts/watch.py tells it: started, configuration, port, health, answer."""

FOLDER = ".spark/startups"
"""In the project."""

KEPT = 200
"""Starts of a stack; the oldest go."""


class Starts:
    """Of one stack."""

    def __init__(self, folder: Path, stack: str) -> None:
        self._path = folder / FOLDER / f"{stack}.json"

    def former(self, configuration: str) -> list[Startup]:
        """Those of this configuration, the newest last."""
        return [one for one in self._read() if one["configuration"] == configuration]

    def remember(self, startup: Startup) -> None:
        """Once, however often the same start is seen."""
        known = self._read()
        if startup in known:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_suffix(".new")
        whole.write_text(json.dumps([*known, startup][-KEPT:], indent=1))
        whole.replace(self._path)

    def _read(self) -> list[Startup]:
        """A file that cannot be read knows of none."""
        try:
            found: list[Startup] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return []
        return found


def in_words(startup: Mapping[str, Any]) -> str:
    return (
        f"port open after {startup['port']} s, /health after {startup['health']} s, "
        f"first answer after {startup['answer']} s"
    )


def usual(starts: list[Startup]) -> str:
    """What to expect; '' where nothing is known."""
    seconds = [str(one["answer"]) for one in starts[-3:]]
    return f"{', '.join(seconds)} s" if seconds else ""
