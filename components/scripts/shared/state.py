"""Where a Spark keeps what stacks have noted on it."""

from __future__ import annotations

import os


STATE = os.path.expanduser(f"~{os.environ.get('SUDO_USER', '')}/.local/state/dgx-spark")
"""Holds the lease and one directory of records per stack; of the login user, also in a script that runs as root.
Source: XDG base directories, state that may be lost."""

LEASE = os.path.join(STATE, "lease.json")


def stack_directory(stack: str) -> str:
    return os.path.join(STATE, stack.replace("/", "."))


def scripts_directory(stack: str) -> str:
    """Where node.py lays the scripts that this stack's steps run (components/remote/parcel.py)."""
    return os.path.join(stack_directory(stack), "scripts")


def program(stack: str, name: str) -> str:
    """Text of a program that runs in a container (components/inside/)."""
    with open(os.path.join(scripts_directory(stack), "inside", name)) as stream:
        return stream.read()


def record_path(stack: str, kind: str) -> str:
    return os.path.join(stack_directory(stack), f"{kind}.json")


def discards(stack: str) -> str:
    """File with the folders of models that go when the stack hands this Spark back, one a line."""
    return os.path.join(stack_directory(stack), "discards")
