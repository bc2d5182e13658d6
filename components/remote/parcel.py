"""How a script of ours gets to a Spark: whole, on the standard input of one fixed command.

Nothing is installed or left on the Spark, the command line is short and holds no secret (sshd's log and
Pulumi's error text show it), and input goes the same way as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "scripts"

FIRST = "import json,sys;job=json.load(sys.stdin);exec(job['loader'])"
"""Short, because Pulumi repeats a failing command in its error text."""

LOADER = """
import io, types
common = types.ModuleType("common")
exec(compile(job["common"], "common.py", "exec"), common.__dict__)
sys.modules["common"] = common
sys.stdin = io.StringIO(json.dumps(job["input"]))
exec(compile(job["script"], sys.argv[2], "exec"))
"""
"""Runs `script` with the module `common` importable and `input` on its standard input."""


SUDO = "sudo -n "
SUDO_ASKS = "sudo -k -S -p '' "
"""Takes the password from the first line of stdin, -k so that it always does. Source: sudo(8)."""


def command(name: str, verb: str, *, limit: int, root: bool = False, asks: bool = False) -> str:
    """Shell command for the Spark, which sh, bash, zsh and fish read alike.

    limit   seconds after which it is ended, whatever it does
    root    by sudo without a password; with `asks`, the password is the first line of stdin, before the parcel
    """
    sudo = (SUDO_ASKS if asks else SUDO) if root else ""
    return f'{sudo}timeout {limit} python3 -c "{FIRST}" {verb} {name}'


BEGIN, END = "<dgx-spark:answer>", "</dgx-spark:answer>"
"""Around an answer on stdout, so that what a login shell prints is told from it."""

MARKED = f"""
sys.stdout.write("{BEGIN}")
sys.stdout.flush()
{LOADER}
sys.stdout.write("{END}")
sys.stdout.flush()
"""
"""The same, with what it prints between marks."""


def pack(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to the command's standard input, as JSON; `given` may hold Pulumi outputs."""
    return {
        "loader": LOADER,
        "script": (FOLDER / name).read_text(),
        "common": common_text(),
        "input": dict(given),
    }


def common_text() -> str:
    return (FOLDER / "common.py").read_text()


def text(name: str, given: Mapping[str, Any]) -> str:
    """`pack` as text, for plain values."""
    return json.dumps(pack(name, given))


def asking(name: str, given: Mapping[str, Any]) -> str:
    """`text` for a script whose answer is read by remote/ask.py."""
    return json.dumps({**pack(name, given), "loader": MARKED})
