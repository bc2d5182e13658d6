"""PyPI's packages by a lock of their own: SGLang's wheel, of which its reading of a command line is asked, and what
image.py and beside.py make images of."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from simulator import cache, images, rootfs
from simulator.layout import ROOT


def sglang() -> Path:
    """A folder with SGLang's wheel; what it needs to read a command line is in the genuine vLLM's image (image.py)."""
    return cache.kept(f"sglang-{key('sglang')}", _sglang)


def _sglang(folder: Path) -> None:
    install(folder, "sglang").rename(folder / "moved")
    shutil.rmtree(folder / "usr")
    for path in (folder / "moved").iterdir():
        path.rename(folder / path.name)
    (folder / "moved").rmdir()


def key(name: str, *more: Path) -> str:
    """Changes with the lock, this file and those."""
    content = hashlib.sha256(rootfs.root().name.encode())
    for path in (lock(name), Path(__file__), *more):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def lock(name: str) -> Path:
    return ROOT / f"requirements-{name}.txt"


def install(root: Path, name: str) -> Path:
    """What requirements-NAME.txt locks; the folder that it is in."""
    packages = root / images.PYTHON_PACKAGES
    copy, scratch = root / "lock.txt", root / "scratch"
    scratch.mkdir(parents=True)
    shutil.copy(lock(name), copy)
    # The root file system is in memory: gigabytes go through a folder of the cache. Open WebUI says that it is for an
    # older Python.
    rootfs.inside(
        "env", f"TMPDIR={scratch}", "python3", "-m", "pip", "--disable-pip-version-check", "install", "-q",
        "--no-cache-dir", "--no-compile", "--no-deps", "--only-binary=:all:", "--ignore-requires-python",
        "--require-hashes", "--target", str(packages), "-r", str(copy), timeout=3600,
    )  # fmt: skip
    shutil.rmtree(scratch)
    copy.unlink()
    return packages
