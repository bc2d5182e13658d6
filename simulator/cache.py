"""What takes long to make and is the same for every checkout, in the user's cache directory, named by its content."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from simulator.layout import CACHE

UNUSED_LIMIT = 30 * 24 * 3600
"""Seconds after which an entry that nobody asked for is taken away."""

LOCKS = ".locks"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The entry `name`, made by `make(path)` where it is not there yet.

    Whole or not at all: it gets its name when `make` has returned. Whoever wants it meanwhile waits.
    """
    path = CACHE / name
    with _lock(name):
        if not path.exists():
            partial = CACHE / f".partial-{name}"
            _remove(partial)
            try:
                make(partial)
            except BaseException:
                _remove(partial)
                raise
            partial.rename(path)
        # `prune` goes by it.
        os.utime(path)
    return path


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    (CACHE / LOCKS).mkdir(parents=True, exist_ok=True)
    with open(CACHE / LOCKS / name, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def prune(now: float | None = None) -> None:
    """Take away what nobody asked for in UNUSED_LIMIT: entries of earlier versions."""
    oldest = (time.time() if now is None else now) - UNUSED_LIMIT
    for path in CACHE.iterdir():
        if path.name != LOCKS and path.lstat().st_mtime < oldest:
            with _lock(path.name):
                _remove(path)


def purge() -> int:
    """Take all of it away; the bytes that it held. No Spark may be up: they stand on it."""
    held = sum(path.lstat().st_blocks * 512 for path in CACHE.rglob("*")) if CACHE.exists() else 0
    _remove(CACHE)
    return held


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
