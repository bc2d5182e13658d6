"""What a script is asked to do, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


NO_ROOM = re.compile(re.escape(os.strerror(errno.ENOSPC)), re.IGNORECASE)
"""Whoever says it: Docker, which is written in Go, has its own letters."""

MAKE_ROOM = "; make room there, then `pulumi up` again"


def job() -> tuple[str, Any]:
    """(verb, input): `apply` or `remove`, and the JSON on stdin."""
    return sys.argv[1], json.load(sys.stdin)


def run(apply: Callable[[Any], None], remove: Callable[[Any], None]) -> None:
    """Do what the command line asks for with what is on stdin."""
    verb, inputs = job()
    with said_in_a_line():
        {"apply": apply, "remove": remove}[verb](inputs)


@contextlib.contextmanager
def said_in_a_line() -> Iterator[None]:
    """What the system refuses (a full disk, Docker that hangs) ends the script with that, and no traceback."""
    try:
        try:
            yield
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            sys.exit(f"{error.strerror or error}{where}")
    except SystemExit as end:
        if isinstance(end.code, str) and NO_ROOM.search(end.code):
            sys.exit(f"{end.code}{MAKE_ROOM}")
        raise


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
