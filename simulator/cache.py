"""What takes long to make and is the same for every checkout, in the user's cache directory, named by its content."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from simulator.layout import CACHE

VERSIONS = 2
"""Of each kind of entry that stay: two checkouts that differ can take turns without making them anew."""

LOCKS = ".locks"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The entry `name`, made by `make(path)` where it is not there yet.

    Whole or not at all: it gets its name when `make` has returned. Whoever wants it meanwhile waits.
    """
    path = CACHE / name
    with lock(name):
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
def lock(name: str) -> Iterator[None]:
    """Nobody else of this user is within for `name` meanwhile."""
    (CACHE / LOCKS).mkdir(parents=True, exist_ok=True)
    with open(CACHE / LOCKS / name, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def prune() -> None:
    """Take away all but the last used VERSIONS of each kind; an entry is named `kind-content`."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(CACHE.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True):
        if path.name != LOCKS:
            kinds.setdefault(path.name.rpartition("-")[0], []).append(path)
    for versions in kinds.values():
        for path in versions[VERSIONS:]:
            with lock(path.name):
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
