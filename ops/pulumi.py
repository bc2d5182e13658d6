"""Which Pulumi runs: the CLI where one is on PATH, else the simulator's hermetic engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO_STATE = ROOT / ".sim" / "backend"
DEMO_PASSPHRASE = "simulated"  # of a stack that holds simulated secrets only


class CommandError(Exception):
    """Shown without a traceback."""


@dataclass(frozen=True)
class Cli:
    name: str
    argv: tuple[str, ...]


def available() -> dict[str, Cli]:
    """Engines on this machine, the preferred one first."""
    found = {}
    if shutil.which("pulumi"):
        found["pulumi"] = Cli("the Pulumi CLI", ("pulumi",))
    found["hermetic"] = Cli("the simulator's hermetic engine", (sys.executable, "-m", "simulator.engine"))
    return found


def chosen() -> Cli:
    """SPARK_ENGINE=pulumi|hermetic decides; otherwise the first that is there."""
    found = available()
    name = os.environ.get("SPARK_ENGINE") or next(iter(found))
    if name not in found:
        raise CommandError(f"SPARK_ENGINE={name}: not on this machine; there is {', '.join(found)}")
    return found[name]


def environment(state: Path = DEMO_STATE) -> dict[str, str]:
    """For a stack whose state is kept in files under `state`."""
    state.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": DEMO_PASSPHRASE,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PYTHONPATH": str(ROOT),
    }


def run(words: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT) -> int:
    """Run `pulumi WORDS` with its output on this terminal; the exit code."""
    return subprocess.run([*chosen().argv, *words], env=dict(env), cwd=cwd).returncode


def output(words: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT) -> str:
    """stdout of `pulumi WORDS`. Raises CommandError with its stderr."""
    done = subprocess.run([*chosen().argv, *words], env=dict(env), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"pulumi {' '.join(words)} failed:\n{done.stderr}{done.stdout}".rstrip())
    return done.stdout.strip()


def passthrough(words: Sequence[str]) -> int:
    return run(words, environment())
