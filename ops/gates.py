"""`./spark test`: linters, types and tests, in the order in which they fail fastest."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ops.pulumi import ROOT, available

if TYPE_CHECKING:
    from simulator.apart import Apart

BIN = Path(sys.executable).parent

SHELL_SCRIPTS = (
    "spark",
    ".ci/run",
    "benchmarks/reference.sh",
    "simulator/in_root.sh",
    "simulator/spark_init.sh",
    *(f"simulator/bin/{name}" for name in ("ibdev2netdev", "journalctl", "nvidia-smi", "start-dockerd", "systemctl")),
)
DOCKERFILES = ("components/images/vllm.Dockerfile", "tests/e2e/small.Dockerfile")


def _mypy_beside(folder: str, *words: str) -> list[str]:
    """For programs that import each other by the names that they have in their own folder."""
    cache = f"--cache-dir=.mypy_cache/{Path(folder).name}"
    argv = [str(BIN / "mypy"), "--config-file=", "--explicit-package-bases", cache]
    return ["env", f"MYPYPATH={folder}", *argv, *words, folder]


GATES = (
    ("ruff check", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ("ruff format", [str(BIN / "ruff"), "format", "--quiet", "--check", "."]),
    ("mypy --strict", [str(BIN / "mypy")]),
    (
        "mypy of what runs on a Spark",
        _mypy_beside("components/scripts", "--strict", "--allow-any-generics", "--python-version=3.10"),
    ),
    ("mypy of the stand-ins", _mypy_beside("simulator/standins", "--check-untyped-defs", "--ignore-missing-imports")),
    ("import-linter", [str(BIN / "lint-imports")]),
    ("shellcheck", ["shellcheck", *SHELL_SCRIPTS]),
    ("hadolint", [str(BIN / "hadolint"), *DOCKERFILES]),
)

TOOLS = {"ssh-keygen": "openssh-client", "rrsync": "rsync", "shellcheck": "shellcheck"}
"""Program that linters and tests run on this machine → its Debian package."""

COVERAGE = ("--cov=components", "--cov=ops", "--cov=simulator", "--cov-report=")


ALL = "--all"


def run(words: Sequence[str]) -> int:
    """Linters, types and tests, the long ones with `--all` alone; with other words, pytest alone with them."""
    from simulator import preflight
    from simulator.layout import CLAIM
    from simulator.shell import SimulatorError

    # Some hundred short processes would compile the same modules again and again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    everything = list(words) == [ALL]
    try:
        # Where one can't install, the tests say what they miss.
        if os.geteuid() == 0 and shutil.which("apt-get"):
            preflight.install([package for program, package in TOOLS.items() if not shutil.which(program)])
        if words and not everything:
            return subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT).returncode
        preflight.ensure()
    except SimulatorError as error:
        print(f"spark: {error}", file=sys.stderr)
        return 1
    for name, argv in GATES:
        print(f"== {name}", flush=True)
        if subprocess.run(argv, cwd=ROOT).returncode:
            print(f"spark: {name} failed", file=sys.stderr)
            return 1
    if CLAIM.exists():
        print("spark: Sparks are simulated already: ./spark demo --down first", file=sys.stderr)
        return 1
    os.environ.setdefault("SPARK_EXAMPLES", "whole" if everything else "short")
    return _tests(everything)


@dataclass(frozen=True)
class Part:
    """Tests that one pytest runs beside the others."""

    words: Sequence[str]
    apart: bool = False
    """On the second simulation."""

    here: bool = False
    """It needs no Spark."""

    covered: bool = False
    """What it runs in its own process is counted. That takes half as long again, and is little where most runs
    elsewhere."""


SIMULATED = ("tests/e2e", "tests/faults")
"""Folders of tests on simulated Sparks."""

ELSEWHERE = (
    "tests/engine",
    "tests/install",
    *(f"tests/unit/test_{name}.py" for name in ("caches", "chain", "field_probe", "hold", "pulse", "together")),
)
"""Tests that need no Spark, and whose programs run as such."""

PROGRAM = "tests/program"
"""Tests of the program against mocks, which are counted beside the rest of those that are."""

ON_CLI = ("tests/e2e", "tests/engine/test_recorded.py", "tests/program/test_package_cli.py")
"""Tests that run once more on the Pulumi CLI, where it is here, or on it alone."""

REAL = "tests/real"
"""Tests with a genuine vLLM, on Sparks of their own."""

APART = tuple(
    f"tests/e2e/test_{name}.py"
    for name in ("beside", "converges", "engines", "takeover", "traits_docker", "traits_engines")
)
"""Half of the end-to-end tests by time, none of which needs more of this machine than the simulated Sparks."""


def _tests(everything: bool) -> int:
    """All of them on simulated Sparks, which leave nothing behind."""
    from simulator import apart
    from simulator import up as simulation
    from simulator.shell import SimulatorError

    print("== tests, on the hermetic engine", flush=True)
    every = parts(everything)
    try:
        # What needs no Spark begins while the Sparks are made, which takes minutes on a new machine.
        with _running([part for part in every if part.here]) as here:
            with _first():
                simulation.make(print)
            simulation.up(3, lambda _: None)
            with (
                apart.simulated(apart.NAME) as second,
                _running([part for part in every if not part.here], second) as there,
            ):
                code = max(there(), here())
        if code == 0 and "pulumi" in available():
            print("== end-to-end tests, recorded steps and the package, on the Pulumi CLI", flush=True)
            code = _pytest([*ON_CLI, *_chosen("", everything)], "pulumi").wait()
    except SimulatorError as error:
        print(f"spark: {error}", file=sys.stderr)
        return 1
    finally:
        simulation.down()
    if everything and code == 0:
        print("== tests on a genuine vLLM", flush=True)
        code = subprocess.run([sys.executable, "-m", "pytest", REAL], cwd=ROOT).returncode
    left = simulation.remains()
    if left:
        print(f"spark: the simulation has left behind:\n{left}", file=sys.stderr)
    print(f"== {'FAILED' if code or left else 'passed'}", flush=True)
    return code or bool(left)


@contextlib.contextmanager
def _first() -> Iterator[None]:
    """What is done meanwhile comes before the tests that run beside it: others wait for it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    # Not every root may.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before - 5)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def parts(everything: bool) -> list[Part]:
    """On each simulation, tests that can run at once: of several Sparks, which mostly wait, and of the third alone;
    and those that need no Spark."""
    rest = [f"--ignore={folder}" for folder in (*SIMULATED, *ELSEWHERE, PROGRAM, REAL)]
    here = [*SIMULATED, *(f"--ignore={file}" for file in APART)]
    chosen: list[tuple[list[str], bool]] = [(here, False), (list(APART), True)]
    marked = [
        Part([*where, *_chosen(marks, everything)], apart)
        for marks in ("not alone", "alone")
        for where, apart in chosen
    ]
    return [
        *marked,
        Part([*ELSEWHERE, *_chosen("", everything)], here=True),
        Part([PROGRAM, *_chosen("", everything)], here=True, covered=True),
        Part([*rest, *_chosen("", everything)], here=True, covered=True),
    ]


def _chosen(marks: str, everything: bool) -> list[str]:
    if everything:
        return [*(["-m", marks] if marks else []), "--durations=25"]
    return ["-m", f"{marks} and not long" if marks else "not long"]


@contextlib.contextmanager
def _running(parts: Sequence[Part], second: Apart | None = None) -> Iterator[Callable[[], int]]:
    """Starts all parts at once. What it yields waits for them, prints what they said and what was counted, and returns
    the worst exit code. Of those on simulated Sparks the first shows its progress."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        shown = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in parts]
        said = [None if second and not number else file for number, file in enumerate(shown)]
        running = [
            _pytest(
                [*part.words, *(COVERAGE if part.covered else ())],
                "hermetic",
                coverage=os.path.join(folder, f"coverage.{number}"),
                out=out,
                second=second if part.apart else None,
            )
            for number, (part, out) in enumerate(zip(parts, said, strict=True))
        ]

        def ended() -> int:
            codes = [process.wait() for process in running]
            for out in filter(None, said):
                out.seek(0)
                print(out.read())
            if any(part.covered for part in parts):
                coverage = [sys.executable, "-m", "coverage"]
                data = f"--data-file={os.path.join(folder, 'coverage')}"
                subprocess.run([*coverage, "combine", "--quiet", data], cwd=ROOT)
                subprocess.run([*coverage, "report", "--skip-covered", data], cwd=ROOT)
            # Negative: ended by a signal.
            return max(abs(code) for code in codes)

        try:
            yield ended
        finally:
            for process in running:
                process.terminate()


def _pytest(
    words: Sequence[str],
    engine: str,
    *,
    coverage: str | None = None,
    out: IO[str] | None = None,
    second: Apart | None = None,
) -> subprocess.Popen[bytes]:
    env = {**os.environ, "SPARK_ENGINE": engine, "SPARK_KEEP": "1", **({"COVERAGE_FILE": coverage} if coverage else {})}
    argv = [sys.executable, "-m", "pytest", *words]
    return subprocess.Popen(second.argv(argv) if second else argv, cwd=ROOT, env=env, stdout=out, stderr=out)


def lock() -> int:
    """uv resolves for every Python from 3.10 on and writes hashes; AIPerf has no Python 3.10 and no 3.14, and the
    last five are for the Python of the simulated Sparks."""
    every = ["--universal", "--python-version", "3.10"]
    sparks = ["--universal", "--python-version", "3.13"]
    locks = {
        **dict.fromkeys(("requirements-uv", "requirements", "requirements-dev"), every),
        "requirements-bench": ["--python-version", "3.11"],
        "requirements-real": [*sparks, "--override", "requirements-real.over"],
        "requirements-simulator": sparks,
        "requirements-sglang": [*sparks, "--no-deps"],
        "requirements-litellm": sparks,
        "requirements-open-webui": [*sparks, "--override", "requirements-open-webui.over"],
    }
    for name, versions in locks.items():
        # With extras: pip 23 takes `coverage[toml]` for a package that is not in a lock of `coverage` (pypa/pip#9644).
        argv = ["uv", "pip", "compile", "--quiet", *versions, "--generate-hashes", "--no-strip-extras"]
        argv += ["--custom-compile-command", "./spark lock", f"{name}.in", "-o", f"{name}.txt"]
        code = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=ROOT).returncode
        if code:
            return code
    return 0
