"""Run a program and raise with what it printed when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence


class SimulatorError(Exception):
    """The simulation can't go on; the message says what to do."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 120,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> str:
    """stdout of `argv`, with `env` on top of this process's environment.

    Raises SimulatorError with both streams when it exits non-zero and `check` is set.
    """
    done = subprocess.run(
        list(argv),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode:
        raise SimulatorError(f"{' '.join(argv)} exited with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
