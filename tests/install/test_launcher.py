"""`./spark` makes its environment by itself, once for each lock file, and says what to do where it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PYTHON = """#!/bin/sh
[ "$1" = -c ] || echo "python $*" >> "$FAKE/calls"
case "$*" in
"-m venv .venv")
    [ -e "$FAKE/venv-works" ] || exit 1
    mkdir -p .venv/bin
    cp "$FAKE/bin/python3" .venv/bin/python
    cp "$FAKE/uv" .venv/bin/uv ;;
"-m pip config get global.index-url") [ -n "$FAKE_INDEX" ] && echo "$FAKE_INDEX" || exit 1 ;;
"-m pip config"* | "-m virtualenv"*) exit 1 ;;
esac
"""
UV = '#!/bin/sh\necho "uv $* from ${UV_DEFAULT_INDEX:-the usual}" >> "$FAKE/calls"\n'
APT = '#!/bin/sh\necho "apt-get $*" >> "$FAKE/calls"\ncase "$*" in *install*) touch "$FAKE/venv-works" ;; esac\n'
BOOTSTRAP = (
    "python -m pip install --disable-pip-version-check -q --no-deps --only-binary :all: --require-hashes "
    "-r requirements-uv.txt"
)
INSTALL = "uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r"


class Machine:
    """A fresh clone on a machine whose Python, uv, apt-get and user are stand-ins that write down their calls."""

    def __init__(self, folder: Path, *, root: bool, venv: bool) -> None:
        self.clone, self.fake = folder / "clone", folder / "fake"
        (self.fake / "bin").mkdir(parents=True)
        self.clone.mkdir()
        shutil.copy(ROOT / "spark", self.clone)
        for lock in ("requirements.txt", "requirements-dev.txt", "requirements-uv.txt"):
            (self.clone / lock).write_text(lock)
        self.program("bin/python3", PYTHON)
        self.program("uv", UV)
        self.program("bin/apt-get", APT)
        self.program("bin/id", f"#!/bin/sh\necho {0 if root else 1000}\n")
        if venv:
            (self.fake / "venv-works").touch()

    def program(self, name: str, text: str) -> None:
        (self.fake / name).write_text(text)
        (self.fake / name).chmod(0o755)

    def spark(self, *words: str, **env: str) -> tuple[int, str, list[str]]:
        """Exit code, stderr, and the calls except those that only look."""
        log = self.fake / "calls"
        log.unlink(missing_ok=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "SSL_"))}
        env = {**clean, "PATH": f"{self.fake}/bin:{os.environ['PATH']}", "FAKE": str(self.fake), "PYTHON": "", **env}
        done = subprocess.run(["./spark", *words], cwd=self.clone, env=env, capture_output=True, text=True)
        calls = log.read_text().splitlines() if log.exists() else []
        looks = ("python -m pip --version", "python -m pip config")
        return done.returncode, done.stderr, [call for call in calls if not call.startswith(looks)]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, root=True, venv=True)


def test_a_fresh_clone_gets_uv_by_pip_and_the_rest_by_uv_all_with_hashes(machine):
    assert machine.spark("status")[2] == [
        "python -m venv .venv",
        BOOTSTRAP,
        f"{INSTALL} requirements.txt from the usual",
        "python -m ops status",
    ]


def test_nothing_is_installed_twice(machine):
    machine.spark("status")
    assert machine.spark("logs", "-f")[2] == ["python -m ops logs -f"]


def test_a_lock_that_changed_is_installed_into_the_same_environment(machine):
    machine.spark("status")
    (machine.clone / "requirements.txt").write_text("changed")
    assert machine.spark("status")[2] == [
        BOOTSTRAP,
        f"{INSTALL} requirements.txt from the usual",
        "python -m ops status",
    ]


def test_the_simulator_needs_more_and_what_it_needs_is_enough_for_the_rest(machine):
    assert f"{INSTALL} requirements-dev.txt from the usual" in machine.spark("demo")[2]
    assert machine.spark("status")[2] == ["python -m ops status"]


def test_an_environment_whose_python_went_with_an_upgrade_is_made_anew(machine):
    machine.spark("status")
    (machine.clone / ".venv" / "bin" / "python").unlink()
    assert machine.spark("status")[2][0] == "python -m venv .venv"


def test_a_mirror_that_pip_was_told_of_is_uvs_too(machine):
    calls = machine.spark("status", FAKE_INDEX="https://mirror/simple")[2]
    assert f"{INSTALL} requirements.txt from https://mirror/simple" in calls


def test_root_gets_the_debian_package_that_was_split_off(tmp_path):
    code, _, calls = Machine(tmp_path, root=True, venv=False).spark("status")
    assert code == 0
    assert calls[1:4] == [
        "apt-get update -qq",
        "apt-get install -qq -y --no-install-recommends python3-venv",
        "python -m venv .venv",
    ]


def test_others_are_told_the_one_command(tmp_path):
    code, said, calls = Machine(tmp_path, root=False, venv=False).spark("status")
    assert code == 1
    assert "sudo apt install python3-venv" in said
    assert not any("ops" in call or "apt-get" in call for call in calls)
