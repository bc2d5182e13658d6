"""Files: read, written whole, told apart from what they were."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator

from .state import STATE


def read(path: str) -> str:
    """A small file without surrounding blanks; '' where it can't be read."""
    try:
        # Whatever it is that stands there: people put files into a cache by hand.
        with open(path, errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def existing(path: str) -> str:
    """`path`, or the directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def trail(path: str) -> list:
    """`path`, and what it leads to link by link; the last is no link, and may not be there."""
    found = [path]
    while os.path.islink(found[-1]) and len(found) < 40:
        folder = os.path.realpath(os.path.dirname(found[-1]))
        found.append(os.path.normpath(os.path.join(folder, os.readlink(found[-1]))))
    return found


def stamp(path: str) -> list:
    """[size, mtime in ns]: changes with whatever is written to the file; [-1, 0] where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return [-1, 0]
    return [about.st_size, about.st_mtime_ns]


def digest_of(path: str, seen: Callable[[int], None] = lambda _: None) -> str:
    """sha256 of a file's content; '' where it can't be read. `seen`: told the bytes of each block."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 24):
                digest.update(block)
                seen(len(block))
            # Memory that the GPU shares should not hold what was only looked at.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return ""
    return digest.hexdigest()


def let_go(path: str) -> None:
    """To the disk and out of the page cache: memory that the GPU shares should not hold it."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        # What is not written out is not let go.
        os.fdatasync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """No other script of ours is within for this directory meanwhile. Leaves no file; an ended script locks nothing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, also beside another one that writes it; of a link, the file that it leads to."""
    path = os.path.realpath(path)
    descriptor, partial = tempfile.mkstemp(".partial", f"{os.path.basename(path)}.", os.path.dirname(path))
    try:
        os.fchmod(descriptor, mode)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(text)
        if "SUDO_UID" in os.environ and path.startswith(os.path.realpath(STATE)):
            os.chown(partial, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
        os.replace(partial, path)
    except OSError as error:
        os.unlink(partial)
        raise OSError(error.errno, error.strerror, path) from None
