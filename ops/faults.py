"""Faults and how they ended: counted by the tests in tests/faults, kept there, and shown in docs/trust.md."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from ops.pulumi import ROOT

TESTS = ROOT / "tests" / "faults"
COUNTS = TESTS / "counts"
"""A file per module of tests: fault → Count."""

COUNTED = "SPARK_FAULTS"
"""Environment variable: the file to which each trial adds a line. Where it is not set, nothing is counted."""


class Count(TypedDict):
    trials: int
    right: int
    seconds: list[float]
    """Of those that ended right, until they were."""


class Line(TypedDict):
    """Of one trial, as tests/faults/conftest.py writes it. One that failed a second time, while it was cleared up, has
    two."""

    module: str
    fault: str
    trial: str
    right: bool
    seconds: float


def run(words: str) -> int:
    """Run the trials whose tests' names match `words` (pytest's -k; '': all) and keep their counts; pytest's exit
    code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trials")
        file.touch()
        argv = [sys.executable, "-m", "pytest", "-q", str(TESTS.relative_to(ROOT)), *(["-k", words] if words else [])]
        code = subprocess.run(argv, cwd=ROOT, env={**os.environ, COUNTED: str(file)}).returncode
        keep([json.loads(line) for line in file.read_text().splitlines()])
    return code


def keep(lines: Iterable[Line]) -> None:
    """In place of what was counted of these faults before, unless that was more and nothing has failed since."""
    for module, counts in counted(lines).items():
        path = COUNTS / f"{module}.json"
        known: dict[str, Count] = json.loads(path.read_text()) if path.exists() else {}
        for fault, new in counts.items():
            if new["trials"] >= known.get(fault, new)["trials"] or new["right"] < new["trials"]:
                known[fault] = new
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(known, indent=1) + "\n")


def counted(lines: Iterable[Line]) -> dict[str, dict[str, Count]]:
    """Module → fault → its count."""
    ends: dict[str, dict[str, dict[str, Line]]] = {}
    for line in lines:
        trials = ends.setdefault(line["module"], {}).setdefault(line["fault"], {})
        former = trials.get(line["trial"], line)
        trials[line["trial"]] = line if former["right"] else former
    return {module: {fault: _count(trials) for fault, trials in of.items()} for module, of in ends.items()}


def _count(trials: Mapping[str, Line]) -> Count:
    right = [line for line in trials.values() if line["right"]]
    return Count(trials=len(trials), right=len(right), seconds=[round(line["seconds"], 1) for line in right])


def table() -> str:
    rows = [
        f"| {fault} | {one['trials']} | {one['right']} | {_seconds(one['seconds'])} |"
        for path in sorted(COUNTS.glob("*.json"))
        for fault, one in json.loads(path.read_text()).items()
    ]
    return "\n".join([HEAD, *rows, ""])


def _seconds(of: list[float]) -> str:
    return f"{statistics.median(of):.0f}, {max(of):.0f}" if of else ""


HEAD = """## Faults

Brought about on simulated Sparks by the tests in tests/faults, at moments that chance chooses (the same in every run).
A trial ends right when, by itself or after one plain `up`, the model answers and rightly, a preview shows no change,
the weights are whole by their content, and containers, volumes, files and keys of others on the same Sparks are as they
were; or when after one plain `destroy` nothing of the stack is left. The seconds are those until then, with stand-ins
of the engines that load in no time. `./spark trust --faults WORDS` runs trials anew (WORDS: of their tests' names).

| Fault | Trials | Ended right | Seconds to right (median, most) |
|---|---|---|---|"""
