"""`./spark test`: linters, types and tests, in the order in which they fail fastest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ops.engine import ROOT, available

BIN = Path(sys.executable).parent

SHELL_SCRIPTS = (
    "spark",
    ".ci/run",
    "simulator/spark_init.sh",
    "simulator/bin/ibdev2netdev",
    "simulator/bin/nvidia-smi",
    "simulator/bin/systemctl",
)
DOCKERFILES = ("components/images/vllm.Dockerfile", "tests/e2e/small.Dockerfile")

GATES = (
    ("ruff check", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ("ruff format", [str(BIN / "ruff"), "format", "--quiet", "--check", "."]),
    ("mypy --strict", [str(BIN / "mypy")]),
    ("shellcheck", ["shellcheck", *SHELL_SCRIPTS]),
    ("hadolint", [str(BIN / "hadolint"), *DOCKERFILES]),
)

COVERAGE = ("--cov=components", "--cov=ops", "--cov=simulator", "--cov-report=")


def run(words: Sequence[str]) -> int:
    """All gates and tests; with words, pytest alone with them."""
    if words:
        return subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT).returncode
    from simulator import preflight
    from simulator.shell import SimulatorError

    try:
        preflight.ensure()
        if not shutil.which("shellcheck"):
            preflight.install(["shellcheck"])
    except SimulatorError as error:
        print(f"spark: {error}", file=sys.stderr)
        return 1
    for name, argv in GATES:
        print(f"== {name}", flush=True)
        if subprocess.run(argv, cwd=ROOT).returncode:
            print(f"spark: {name} failed", file=sys.stderr)
            return 1
    print("== tests, on the hermetic engine", flush=True)
    code = _both()
    if code == 0 and "pulumi" in available():
        print("== end-to-end tests and recorded steps, on the Pulumi CLI", flush=True)
        code = _pytest(["tests/e2e", "tests/engine/test_recorded.py"], "pulumi").wait()
    return code


def _both() -> int:
    """The tests that need Sparks, which mostly wait, and beside them those that need none."""
    with tempfile.TemporaryFile("w+") as shown, tempfile.TemporaryDirectory() as folder:
        data = [os.path.join(folder, name) for name in ("others", "sparks")]
        others = _pytest(["--ignore=tests/e2e", *COVERAGE], "hermetic", coverage=data[0], out=shown)
        code = _pytest(["tests/e2e", *COVERAGE], "hermetic", coverage=data[1]).wait()
        code = others.wait() or code
        shown.seek(0)
        print(shown.read())
        report = [sys.executable, "-m", "coverage"]
        subprocess.run([*report, "combine", "--quiet", f"--data-file={folder}/all", *data], cwd=ROOT)
        subprocess.run([*report, "report", "--skip-covered", f"--data-file={folder}/all"], cwd=ROOT)
        print(f"== {'passed' if code == 0 else 'FAILED'}", flush=True)
    return code


def _pytest(
    words: Sequence[str], engine: str, *, coverage: str | None = None, out: IO[str] | None = None
) -> subprocess.Popen[bytes]:
    env = {**os.environ, "SPARK_ENGINE": engine, **({"COVERAGE_FILE": coverage} if coverage else {})}
    return subprocess.Popen([sys.executable, "-m", "pytest", *words], cwd=ROOT, env=env, stdout=out, stderr=out)


def lock() -> int:
    """uv resolves for every Python from 3.10 on and writes hashes."""
    for name in ("requirements", "requirements-dev"):
        argv = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--generate-hashes"]
        argv += ["--custom-compile-command", "./spark lock", f"{name}.in", "-o", f"{name}.txt"]
        code = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=ROOT).returncode
        if code:
            return code
    return 0
