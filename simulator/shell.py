"""Run a program and raise with what it printed when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class SimulatorError(Exception):
    """The simulation can't go on; the message says what to do."""


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """stdout of `argv`. Raises SimulatorError with both streams when it exits non-zero and `check` is set."""
    done = subprocess.run(
        list(argv),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise SimulatorError(f"{' '.join(argv)} exited with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
