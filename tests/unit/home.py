"""A login user's home, in which the scripts for a Spark run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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

    def step(self, script: str, verb: str, *, shell: str = "sh", **given: object) -> subprocess.CompletedProcess[str]:
        """As a step of STACK runs it: from the folder that the lease has laid."""
        command = parcel.command_there(STACK, script, verb, limit=20).replace("python3", sys.executable, 1)
        return subprocess.run(
            [shell, "-c", command], input=json.dumps(given), env=self.environment(), capture_output=True, text=True
        )

    def lease(
        self,
        verb: str,
        stack: str = STACK,
        generation: str = "1",
        *,
        cache: str = "",
        takeover: bool = False,
        node: str = "spark-1",
    ) -> subprocess.CompletedProcess[str]:
        """The first step on a Spark: it brings the scripts of the others."""
        return self.run(
            "node.py",
            verb,
            stack=stack,
            node=node,
            cache=cache or str(self.path / ".cache/huggingface"),
            takeover=takeover,
            record=record("node", generation, stack),
            laid=record("scripts", generation, stack),
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.path), "SSH_CONNECTION": "10.0.0.9 50000 10.0.0.1 22"}

    def text(self, script: str, given: Mapping[str, Any]) -> str:
        return json.dumps(parcel.pack_all(given) if script == "node.py" else parcel.pack(script, given))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))


def probe(home: Home, look: object, encodings: Sequence[str] = ()) -> dict[str, Any]:
    """What the probe says of `home`, whose cache is in it."""
    given = {"stack": STACK, "cache": str(home.path), "repos": ["a/b"], "images": [], "sudo": False, "draft": None}
    done = home.run("probe.py", "apply", look=look, encodings=encodings, **given)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def record(kind: str, generation: str = "1", stack: str = STACK) -> dict[str, str]:
    return {"stack": stack, "kind": kind, "spec": "s", "generation": generation}
