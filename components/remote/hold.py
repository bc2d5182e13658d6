"""One `up` of a stack at a time, whatever Pulumi's backend locks: held on every Spark while this program runs.

Two checkouts with a state each, or a backend without locks, would make each other's containers anew for ever.

The connection that asks a Spark holds it afterwards, and what else this program does there goes over it, too: OpenSSH
shares it (ssh_config(5), ControlMaster).
"""

from __future__ import annotations

import atexit
import getpass
import itertools
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from components.problems import Problem
from components.remote import ask, openssh, parcel, ssh
from components.remote.ask import Lines
from components.remote.openssh import Target
from components.scripts.contracts import Hold
from components.settings import Settings

LONGEST = 48 * 3600
"""Seconds of one `up`."""

WAIT = "wait until it is done, or end it there; where that machine is gone, kill the process named, on this Spark"

LONGEST_PATH = 103
"""Bytes of a socket's path. Source: unix(4) of macOS; Linux has 107."""

_held: dict[Target, tuple[subprocess.Popen[str], str]] = {}
"""ssh's process, and the socket by which it shares its connection; '' for none."""

_numbers = itertools.count()


def dial(settings: Settings) -> Lines:
    """As ask.dial, for an `up`: these are asked to stay, and then hold their Sparks until this process ends.

    What held one of them for a former `up` of this process lets go.
    """
    probe = parcel.command("probe.py", "apply", limit=ask.REMOTE_LIMIT, of_several=True)
    holding = parcel.command("hold.py", "apply", limit=LONGEST, of_several=True)
    atexit.register(end)
    lines = {}
    for target in (ssh.target(node, settings.ssh) for node in settings.nodes):
        if target in _held:
            former, _ = _held.pop(target)
            former.kill()
            former.wait()
        socket = _socket()
        process = ask.opened([*openssh.argv(target, _sharing(socket)), f"{probe} && {holding}"])
        lines[target.name] = process
        if process:
            _held[target] = process, socket
    return lines


def _sharing(socket: str) -> list[str]:
    # A user's own ControlPersist would leave it behind.
    return [*_over(socket), "-o", "ControlMaster=yes", "-o", "ControlPersist=no"] if socket else []


def _over(socket: str) -> list[str]:
    return ["-o", f"ControlPath={openssh.word(socket)}"] if socket else []


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dgx-spark-", ignore_cleanup_errors=True)


def _socket() -> str:
    """A path for one; '' where it would be too long."""
    path = os.path.join(_folder().name, str(next(_numbers)))
    # While ssh makes one, its path has 17 characters more. Source: openssh-portable, mux.c, muxserver_listen.
    return path if len(path.encode()) + 17 <= LONGEST_PATH else ""


def shared(target: Target) -> list[str]:
    """ssh's words to go over the connection that holds this Spark. Where there is none, or sshd lets no more over it
    (MaxSessions), ssh makes one of its own."""
    _, socket = _held.get(target, (None, ""))
    return _over(socket)


def end() -> None:
    """Let go of all Sparks, and leave nothing here."""
    while _held:
        _, (process, _) = _held.popitem()
        process.kill()
    if _folder.cache_info().currsize:
        _folder().cleanup()
        _folder.cache_clear()


def hold(lines: Lines, stack: str) -> list[Problem]:
    """A problem for each Spark where another `up` of this stack (ORG/PROJECT/STACK) is under way."""
    who = f"{getpass.getuser()}@{platform.node()} since {time.strftime('%H:%M')}"
    text = parcel.text("hold.py", Hold(stack=stack, who=who))
    with ThreadPoolExecutor(len(lines)) as pool:
        answers = list(pool.map(lambda process: _one(process, text), lines.values()))
    return [Problem(name, said, WAIT) for name, said in zip(lines, answers, strict=True) if said]


def _one(process: subprocess.Popen[str] | None, text: str) -> str:
    """'' when it is held; else why not."""
    assert process
    assert process.stdout
    assert process.stderr
    ask.send(process, text)
    # A login shell may print something before.
    if any(line.rstrip().endswith("held") for line in process.stdout):
        return ""
    return _last(process.stderr.read().splitlines())


def _last(lines: Sequence[str]) -> str:
    return lines[-1] if lines else "ssh ended without a word"
