"""How the program ends before its time, such that a person reads the reason and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import pulumi

from components.problems import Refused

TOLD = 32
"""Exit code of a program that has told its user why; after any other Pulumi adds that the program failed.
Source: pulumi/pulumi, sdk/python/cmd/pulumi-language-python/main.go."""


def quietly() -> None:
    """Let an interrupt end this process at once.

    Pulumi sends one when a step has failed, whose reason it shows, and on Ctrl-C; Python would answer with tracebacks.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(TOLD))


def refuse(refused: Refused) -> NoReturn:
    """Show what is wrong and end; not as RunError, after which Pulumi calls it an unhandled error as well."""
    pulumi.log.error(str(refused))
    sys.exit(TOLD)
