"""A login user's home, in which the scripts for a Spark run here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.remote import parcel

STACK = "organization/dgx-spark/test"


class Home:
    """A login user's home, and scripts run in it exactly as on a Spark."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, script: str, verb: str, **given: object) -> subprocess.CompletedProcess[str]:
        command = parcel.command(script, verb, limit=20).replace("python3", sys.executable, 1)
        return subprocess.run(
            ["sh", "-c", command],
            input=self.text(script, given),
            env=self.environment(),
            capture_output=True,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.path), "SSH_CONNECTION": "10.0.0.9 50000 10.0.0.1 22"}

    def text(self, script: str, given: Mapping[str, Any]) -> str:
        return parcel.text(script, given)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))


def record(kind: str, generation: str = "1", stack: str = STACK) -> dict[str, str]:
    return {"stack": stack, "kind": kind, "spec": "s", "generation": generation}
