"""Which Pulumi runs: the CLI on PATH or in .venv, else the simulator's hermetic engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import requests

ROOT = Path(__file__).resolve().parent.parent
DEMO_STATE = ROOT / ".sim" / "backend"
DEMO_PASSPHRASE = "simulated"  # of a stack that holds simulated secrets only
FETCHED = Path(sys.prefix) / "pulumi"
"""Where `fetch` puts the CLI."""

SITE = "https://get.pulumi.com"
SITE_LIMIT = 5
"""Seconds for the site's first answer; where the network drops packets, nobody shall wait for long."""


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
    elif (FETCHED / "bin" / "pulumi").exists():
        found["pulumi"] = Cli("the Pulumi CLI in .venv", (str(FETCHED / "bin" / "pulumi"),))
    found["hermetic"] = Cli("the simulator's hermetic engine", (sys.executable, "-m", "simulator.engine"))
    return found


def chosen(env: Mapping[str, str] = os.environ) -> Cli:
    """SPARK_ENGINE=pulumi|hermetic decides, else who made the stacks of this backend, else the first that is there.

    Raises CommandError for an engine that is not there, and for the CLI where the hermetic engine has made the stacks.
    """
    found = available()
    theirs = _hermetic_stacks(env.get("PULUMI_BACKEND_URL", ""))
    name = os.environ.get("SPARK_ENGINE") or ("hermetic" if theirs else next(iter(found)))
    if name not in found:
        raise CommandError(f"SPARK_ENGINE={name}: not on this machine; there is {', '.join(found)}")
    if name == "pulumi" and theirs:
        raise CommandError(
            f"{', '.join(theirs)} was brought up by the simulator's hermetic engine, whose state the Pulumi CLI can't "
            "read: go on without SPARK_ENGINE=pulumi, or take the stack down first (./spark demo --down)"
        )
    return found[name]


def _hermetic_stacks(backend: str) -> list[str]:
    """Stacks in this backend, where it is a folder, that the hermetic engine keeps."""
    if not backend.startswith("file://"):
        return []
    files = sorted(Path(backend.removeprefix("file://")).expanduser().glob(".pulumi/stacks/*/*.json"))
    states = {path.stem: json.loads(path.read_text())["checkpoint"].get("latest") or {} for path in files}
    return [name for name, state in states.items() if state.get("manifest", {}).get("version") == "hermetic"]


def fetch(say: Callable[[str], None]) -> bool:
    """Have the CLI of the SDK's version in .venv, where none is here and its site can be reached; whether there is one.

    Not where SPARK_ENGINE has decided already.
    """
    if "pulumi" in available():
        return True
    if os.environ.get("SPARK_ENGINE"):
        return False
    try:
        requests.head(SITE, timeout=SITE_LIMIT)
    except requests.RequestException as error:
        say(f"the Pulumi CLI is not here, and {SITE} can't be reached ({type(error).__name__})")
        return False
    # Takes half a second to import, and few commands come here.
    from pulumi.automation import PulumiCommand

    # By default of the same version as the SDK, which requirements.txt pins.
    say(f"fetching the Pulumi CLI {version('pulumi')} from {SITE} into {FETCHED}")
    try:
        PulumiCommand.install(root=str(FETCHED))
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"the Pulumi CLI could not be fetched: {error}")
        return False
    return True


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


def with_plugins(env: Mapping[str, str]) -> dict[str, str]:
    """The fetched CLI finds its language hosts by PATH."""
    return {**env, "PATH": os.pathsep.join([env.get("PATH", os.defpath), str(FETCHED / "bin")])}


def run(words: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT, log: IO[str] | None = None) -> int:
    """Run `pulumi WORDS` with its output on this terminal, or in `log`; the exit code."""
    return _done(words, env, cwd, log).returncode


def output(words: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT) -> str:
    """stdout of `pulumi WORDS`. Raises CommandError with its stderr."""
    done = _done(words, env, cwd, subprocess.PIPE)
    if done.returncode:
        raise CommandError(f"pulumi {' '.join(words)} failed:\n{done.stderr}{done.stdout}".rstrip())
    return done.stdout.strip()


def _done(
    words: Sequence[str], env: Mapping[str, str], cwd: Path, out: int | IO[str] | None
) -> subprocess.CompletedProcess[str]:
    """Ctrl-C is Pulumi's own to handle, which the terminal tells of it as well: it ends what it does and keeps its
    state. Left alone, subprocess would kill it a quarter of a second later. Raises KeyboardInterrupt afterwards.

    out   for stdout and stderr, as subprocess takes it; None: this terminal
    """
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        argv = [*chosen(env).argv, *words]
        done = subprocess.run(argv, env=with_plugins(env), cwd=cwd, stdout=out, stderr=out, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
    return done


def passthrough(words: Sequence[str]) -> int:
    return run(words, environment())
