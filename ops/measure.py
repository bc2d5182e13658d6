"""`./spark measure`: what the program adds, on simulated Sparks (benchmarks/measure.py) or on a stack's own.

On real Sparks nothing is changed: what can be measured while they serve is measured, and the rest is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from rich.console import Console

from components.remote import ssh
from ops import look
from ops.pulumi import ROOT, CommandError, output
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)


def simulated(only: Sequence[str], *, quick: bool) -> int:
    """All of it; the exit code."""
    words = [*(["--quick"] if quick else []), *(f"--only={name}" for name in only)]
    return subprocess.run([sys.executable, "-m", "benchmarks.measure", *words], cwd=ROOT, env=os.environ).returncode


def real(cluster: Stack, *, quick: bool) -> None:
    """Of a stack that serves. Raises CommandError where a preview shows changes: that one takes longer."""
    if changes := cluster.where.changes(cluster.stack):
        raise CommandError(f"`pulumi up` first: {', '.join(changes)} would change")
    repeats = 1 if quick else 5
    previews = [_seconds(lambda: _preview(cluster)) for _ in range(repeats)]
    logins = [_seconds(lambda: _log_in(cluster)) for _ in range(repeats)]
    console.print(f"preview without changes: {_spread(previews)}; one `ssh true` to each Spark: {_spread(logins)}")
    if startup := look.startup(cluster):
        console.print(f"the server's last start: {look.in_words(startup)}")
    console.print("Not measured here: up, switch, copies and growth, which would take the endpoint down.")


def _preview(cluster: Stack) -> None:
    output(["preview", "--json", "--stack", cluster.stack], cluster.where.env, cluster.where.folder)


def _log_in(cluster: Stack) -> None:
    argvs = [[*ssh.argv(node, cluster.settings.ssh), "true"] for node in cluster.settings.nodes]
    with ThreadPoolExecutor(len(argvs)) as pool:
        codes = list(pool.map(lambda argv: subprocess.run(argv, stdin=subprocess.DEVNULL).returncode, argvs))
    if any(codes):
        raise CommandError("a Spark can't be reached: ./spark doctor")


def _seconds(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
