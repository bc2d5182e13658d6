"""What was locked can be installed: today, with the pip that some Python brings, and on any day to come."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install.locks import NAMES, ROOT, read, unmet

UV = Path(sys.executable).parent / "uv"
FOR_USERS = ("requirements.txt", "requirements-dev.txt")
PIPS = ("23.0.1", "23.2.1", "26.3")
"""Debian 12's, that of python.org's 3.11, and the newest when this was written: nothing here depends on the day."""

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def pins(name: str):
    return list(read((ROOT / name).read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_every_package_is_pinned_and_has_hashes(name):
    for pin in pins(name):
        assert [clause.operator for clause in pin.requirement.specifier] == ["=="], pin
        assert pin.hashes, pin
        assert all(text.startswith("sha256:") for text in pin.hashes), pin


@pytest.mark.parametrize("name", FOR_USERS)
def test_every_dependency_is_pinned_with_the_extras_that_are_asked_for(name):
    locked = pins(name)
    asked = {pin.name: metadata.requires(pin.name) or [] for pin in locked if pin.applies}
    assert unmet(locked, asked) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_locked(name):
    """Red: ./spark lock was forgotten."""
    asked = [Requirement(line) for line in wanted(Path(name).with_suffix(".in"))]
    for one in asked:
        found = [pin.requirement.specifier for pin in pins(name) if pin.name == canonicalize_name(one.name)]
        versions = [next(iter(specifier)).version for specifier in found]
        assert versions, f"{one} is not in {name}"
        assert all(one.specifier.contains(version) for version in versions), one


def wanted(path: Path) -> list[str]:
    found = []
    for line in (ROOT / path).read_text().splitlines():
        if line.startswith("-r "):
            found += wanted(Path(line.removeprefix("-r ")))
        elif line and not line.startswith(("#", "-c ")):
            found.append(line)
    return found


def test_an_extra_that_the_lock_left_out_is_found():
    old = list(read("coverage==7.17.3 \\\n    --hash=sha256:00\npytest-cov==7.1.0 \\\n    --hash=sha256:00\n"))
    asked = {"pytest-cov": ["coverage[toml]>=7.10.6", "virtualenv; extra == 'testing'"]}
    assert unmet(old, asked) == ["pytest-cov needs coverage[toml]>=7.10.6"]
    mended = list(read("coverage[toml]==7.17.3 --hash=sha256:00\npytest-cov==7.1.0 --hash=sha256:00\n"))
    assert unmet(mended, asked) == []


def test_what_is_locked_for_users_is_locked_for_developers_too_in_the_same_version():
    """`./spark` installs the second over the first."""
    users, developers = (
        {(pin.name, str(pin.requirement.specifier)) for pin in pins(name)}
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert users <= developers


def test_the_installer_is_one_package_that_needs_no_other():
    assert [pin.name for pin in pins("requirements-uv.txt")] == ["uv"]
    assert metadata.requires("uv") is None


def succeed(*argv: str | Path) -> None:
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def empty(folder: Path) -> Path:
    """The Python of a new environment."""
    succeed(UV, "venv", "--quiet", "--python", sys.executable, folder)
    return folder / "bin" / "python"


@pytest.mark.long
@pytest.mark.parametrize("pip", PIPS)
def test_pip_old_and_new_installs_both_locks(pip, tmp_path):
    python = empty(tmp_path / "venv")
    succeed(UV, "pip", "install", "--quiet", "--python", python, f"pip=={pip}")
    for name in FOR_USERS:
        succeed(python, "-m", "pip", "install", "--quiet", "--dry-run", "--require-hashes", "-r", name)


@pytest.mark.parametrize("version", PYTHONS)
def test_uv_installs_both_locks_from_wheels_for_every_python(version, tmp_path):
    python = empty(tmp_path / "venv")
    argv = [UV, "pip", "install", "--quiet", "--dry-run", "--python", python, "--python-version", version]
    for name in FOR_USERS:
        succeed(*argv, "--only-binary", ":all:", "--require-hashes", "-r", name)
