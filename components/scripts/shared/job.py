"""What a script is asked to do, and what it says meanwhile."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def job() -> tuple[str, Any]:
    """(verb, input): `apply` or `remove`, and the JSON on stdin."""
    return sys.argv[1], json.load(sys.stdin)


def run(apply: Callable[[Any], None], remove: Callable[[Any], None]) -> None:
    """Do what the command line asks for with what is on stdin."""
    verb, inputs = job()
    {"apply": apply, "remove": remove}[verb](inputs)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
