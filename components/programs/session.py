"""A script of ours, running on a Spark over SSH while a program here listens. Standard library only."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from components.remote import openssh, parcel


def start(
    ssh: Mapping[str, Any], script: str, inputs: Mapping[str, object], *, limit: int, more: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """`ssh`: the fields of openssh.Target; `limit`: seconds after which it is ended there; `more`: words of ssh's."""
    argv = [*openssh.argv(openssh.Target(**ssh), more), parcel.command(script, "apply", limit=limit)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stdin
    try:
        process.stdin.write(parcel.text(script, inputs))
        process.stdin.close()
    except BrokenPipeError:
        pass  # ssh has ended: its stderr says why
    return process


class Failed(Exception):
    """A script has not done its work; `str()` is its own words."""


def run(
    ssh: Mapping[str, Any], script: str, inputs: Mapping[str, object], *, limit: int, more: Sequence[str] = ()
) -> str:
    """What it prints when it is done. Raises Failed."""
    process = start(ssh, script, inputs, limit=limit, more=more)
    # It is closed, which `communicate` does not expect.
    process.stdin = None
    said, words = process.communicate()
    if process.returncode:
        raise Failed(f"{ssh['name']}: {(words.strip().splitlines() or ['ssh ended without a word'])[-1]}")
    return said


def last_words(process: subprocess.Popen[str], otherwise: str) -> str:
    """The last line of its stderr."""
    assert process.stderr
    return (process.stderr.read().strip().splitlines() or [otherwise])[-1]
