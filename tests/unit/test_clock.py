"""A Spark whose clock is wrong: nothing of ours that runs on it, or in its containers, reads the time of day."""

from __future__ import annotations

import ast
from pathlib import Path

import components

FOLDERS = ("scripts", "inside", "images")
CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "mktime", "clock_gettime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
SHOWN = {"scripts/doctor.py", "scripts/watch.py"}
"""Say something of it, and decide nothing: how far a Spark's clock is from this machine's; how long ago a container was
started, by Docker's word on the same Spark."""


def reads(path):
    """Names of what reads the wall clock in a program."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
            module = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCK.get(module, ()):
                yield f"{module}.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            yield from (f"from {node.module} import {name.name}" for name in node.names)


def test_no_program_on_a_spark_decides_by_the_time_of_day():
    base = Path(components.__file__).parent
    programs = [path for folder in FOLDERS for path in (base / folder).rglob("*.py")]
    assert len(programs) > 30
    found = {str(path.relative_to(base)): list(reads(path)) for path in programs}
    assert {name for name, calls in found.items() if calls} <= SHOWN
