"""One `up` of a stack at a time, whatever Pulumi's backend locks: held on every Spark while this program runs.

Two checkouts with a state each, or a backend without locks, would make each other's containers anew for ever.
"""

from __future__ import annotations

import atexit
import getpass
import platform
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from components.problems import Problem
from components.remote import parcel, ssh
from components.scripts.contracts import Hold
from components.settings import Node, Settings

LONGEST = 48 * 3600
"""Seconds of one `up`."""

WAIT = "wait until it is done, or end it there"


def hold(settings: Settings, stack: str) -> list[Problem]:
    """A problem for each Spark where another `up` of this stack (ORG/PROJECT/STACK) is under way."""
    who = f"{getpass.getuser()}@{platform.node()} since {time.strftime('%H:%M')}"
    with ThreadPoolExecutor(len(settings.nodes)) as pool:
        answers = list(pool.map(lambda node: _one(node, settings, stack, who), settings.nodes))
    return [Problem(node.name, said, WAIT) for node, said in zip(settings.nodes, answers, strict=True) if said]


def _one(node: Node, settings: Settings, stack: str, who: str) -> str:
    """'' when it is held; else why not."""
    argv = [*ssh.argv(node, settings.ssh), parcel.command("hold.py", "apply", limit=LONGEST)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    atexit.register(process.kill)
    try:
        process.stdin.write(parcel.text("hold.py", Hold(stack=stack, who=who)))
        process.stdin.close()
    except BrokenPipeError:
        pass  # ssh has ended: its stderr says why
    # A login shell may print something before.
    if any(line.rstrip().endswith("held") for line in process.stdout):
        return ""
    return _last(process.stderr.read().splitlines())


def _last(lines: Sequence[str]) -> str:
    return lines[-1] if lines else "ssh ended without a word"
