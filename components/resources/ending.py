"""How the program ends before its time, such that a person reads the reason and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import pulumi

from components.problems import Refused

TOLD = 32
"""Exit code of a program that has told its user why; after any other Pulumi adds that the program failed.
Source: pulumi/pulumi, sdk/python/cmd/pulumi-language-python/main.go."""


BEFORE: set[Callable[[], None]] = set()
"""What an interrupted process does first; Python's atexit is not among it."""


def quietly() -> None:
    """Let an interrupt end this process at once.

    Pulumi sends one when a step has failed, whose reason it shows, and on Ctrl-C; Python would answer with tracebacks.
    """

    def end(*_: object) -> NoReturn:
        for last in BEFORE:
            last()
        os._exit(TOLD)

    signal.signal(signal.SIGINT, end)


def refuse(refused: Refused) -> NoReturn:
    """Show what is wrong and end; not as RunError, after which Pulumi calls it an unhandled error as well."""
    pulumi.log.error(str(refused))
    sys.exit(TOLD)
