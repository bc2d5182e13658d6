"""`./spark measure`: what the program adds, on simulated Sparks (benchmarks/measure.py) or on a stack's own
(benchmarks/real.py). Each is a program of its own: no other command needs what they import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ops.pulumi import ROOT, CommandError


def measure(stack: str | None, only: Sequence[str], *, quick: bool) -> int:
    """The exit code.

    stack  of real Sparks; None: simulated ones
    only   groups; none: all
    """
    if stack is not None and only:
        raise CommandError("--only is for simulated Sparks: with --stack all is measured that changes nothing there")
    words = [*(["--quick"] if quick else []), *(f"--only={name}" for name in only)]
    program = ["benchmarks.measure"] if stack is None else ["benchmarks.real", stack]
    return subprocess.run([sys.executable, "-m", *program, *words], cwd=ROOT).returncode
