"""What sshd does for a key that copies models: it sends from one directory, and does nothing else.

Two things can be asked for. `rsync`, sending a folder: links and small files. rsync's own rrsync does not let links be
followed out of the folder that is sent, and a cache's files may be such links (huggingface_hub ≥ 1.32 keeps large files
once for all models; people link to larger disks). So this follows them, and knows no other option than those that
weights.py uses. And `send FOLDER OFFSET SIZE FILE`, a file's bytes from OFFSET on, also of one that this Spark is still
receiving: it is passed on as it comes. Named by copy_access.py in ~/.ssh/authorized_keys.

argument  the directory
env       SSH_ORIGINAL_COMMAND: what the other Spark asks for. Source: sshd(8), command="…"
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time

from shared.upstream import AGAIN, CHECKING, GRACE, IDLE, LOOK, PARTIAL, RECEIVING, stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from typing import TypeVar

    T = TypeVar("T")

OPTION = re.compile(r"-[lDtpr]+e\d*\.\w+|--copy-unsafe-links")
"""What rsync 3.2 to 3.5 make of weights.py's. `s` before the `e` would bring the path by another way than this one."""

PATH = re.compile(r"(?:[A-Za-z0-9_.][A-Za-z0-9_.-]*/?)+")

STACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The stack's directory, in which this is laid."""

BLOCK = 1 << 20


def below(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")


def is_rsync(words: list) -> bool:
    """`rsync --server --sender OPTION… . PATH`, with a path that stays below."""
    if words[:3] != ["rsync", "--server", "--sender"] or len(words) < 6 or words[-2] != ".":
        return False
    options = all(OPTION.fullmatch(word) for word in words[3:-2])
    return bool(options and PATH.fullmatch(words[-1]) and below(words[-1]))


def is_send(words: list) -> bool:
    """`send FOLDER OFFSET SIZE FILE`, the same."""
    if words[:1] != ["send"] or len(words) != 5:
        return False
    _, folder, offset, size, file = words
    numbers = all(re.fullmatch(r"[0-9]{1,15}", word) for word in (offset, size))
    return bool(numbers and PATH.fullmatch(folder) and below(folder) and below(file))


class Model:
    """A folder below the directory, as the steps that work on it here know it."""

    def __init__(self, directory: str, folder: str) -> None:
        self.path = os.path.normpath(os.path.join(directory, folder))

    def stage(self) -> str:
        return stage(STACK, self.path)

    def wait(self, until: Callable[[str], T | None], what: str) -> T:
        """What `until` finds, asked again and again with the stage that this Spark is at."""
        deadline = time.monotonic() + GRACE
        while True:
            now = self.stage()
            found = until(now)
            if found is not None:
                return found
            if now == IDLE and time.monotonic() > deadline:
                sys.exit(f"{os.path.normpath(os.path.join(self.path, what))} is not here, and nobody copies it to here")
            time.sleep(LOOK)

    def settled(self, now: str) -> bool | None:
        """Whether it is known here what of the model is whole."""
        return True if now == RECEIVING or (now == IDLE and os.path.isdir(self.path)) else None

    def opened(self, now: str, file: str, size: int) -> FileIO | None:
        """The file, or what is there of it while it is received."""
        # A link may lead to what is not there yet.
        path = os.path.realpath(os.path.join(self.path, file))
        # It gets its name, and loses the other, at any moment.
        with contextlib.suppress(FileNotFoundError):
            if now != CHECKING and os.path.isfile(path):
                # Where nobody is at work yet, what has another length is what somebody has to mend.
                return open(path, "rb", buffering=0) if now == RECEIVING or size in (0, os.path.getsize(path)) else None
            if now == RECEIVING:
                return open(path + PARTIAL, "rb", buffering=0)
        return None

    def send(self, file: str, offset: int, size: int) -> None:
        """`size` 0: as long as it is."""
        with self.wait(lambda now: self.opened(now, file, size), file) as stream:
            stream.seek(offset)
            end = size or os.fstat(stream.fileno()).st_size
            while offset < end:
                # Before the look: else what comes between the two would be missed.
                over, taken_back = self.stage() == IDLE, os.fstat(stream.fileno()).st_nlink == 0
                block = stream.read(min(BLOCK, end - offset))
                sys.stdout.buffer.write(block)
                offset += len(block)
                if taken_back and not block:
                    sys.exit(AGAIN)
                if over and not block:
                    sys.exit(f"{os.path.join(self.path, file)} did not arrive here whole")
                if not block:
                    sys.stdout.buffer.flush()
                    time.sleep(LOOK / 10)
            sys.stdout.buffer.flush()
            # Memory that the GPU shares should not hold what was only passed on.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    directory = sys.argv[1]
    try:
        words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError:
        words = []
    if is_send(words):
        _, folder, offset, size, file = words
        with contextlib.suppress(BrokenPipeError):
            Model(directory, folder).send(file, int(offset), int(size))
    elif is_rsync(words):
        model = Model(directory, words[-1])
        model.wait(model.settled, ".")
        os.chdir(directory)
        os.execvp("rsync", words)
    else:
        sys.exit("dgx-spark: this key copies models, and does nothing else")


main()
