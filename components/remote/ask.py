"""Ask all Sparks at once, by one SSH connection each, which are opened before it is known what to ask.

Most of the time goes into that; meanwhile this program imports what it needs for the question.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.facts.failure import Failure
from components.remote import parcel, ssh
from components.remote.parcel import BEGIN, END
from components.settings import Settings

REMOTE_LIMIT = 50
"""Seconds after which a Spark's probe ends itself."""

LIMIT = 60
"""Seconds for one Spark. A probe takes well under one."""

SSH_FAILED = 255
"""ssh's own exit code; every other one is the command's. Source: ssh(1)."""

TIMED_OUT, NOT_FOUND = 124, 127
"""Of the command `timeout` on the Spark (timeout(1)); the latter also of shells. Their words depend on the language."""

SSH_SAYS = (
    ("Host key verification failed", Failure.HOST_KEY),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Failure.HOST_KEY),
    ("Permission denied", Failure.LOGIN),
    ("Could not resolve hostname", Failure.NAME),
    ("Connection refused", Failure.UNREACHABLE),
    ("timed out", Failure.UNREACHABLE),
    ("No route to host", Failure.UNREACHABLE),
    ("Network is unreachable", Failure.UNREACHABLE),
    ("no such identity", Failure.LOGIN),
)
"""Words of OpenSSH's stderr → what kind of failure it is; the first hit counts."""

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]+")
"""Of the key that a machine has shown, in OpenSSH's warning that it is not the pinned one. Source: openssh-portable,
sshconnect.c."""

WORDS = 120
"""Characters of something unexpected that are shown."""


def classify(code: int, stderr: str) -> Failure:
    if code == SSH_FAILED:
        return next((kind for words, kind in SSH_SAYS if words in stderr), Failure.OTHER)
    if code in (TIMED_OUT, NOT_FOUND):
        return {TIMED_OUT: Failure.SLOW, NOT_FOUND: Failure.PYTHON}[code]
    return Failure.SUDO if is_sudo(stderr) else Failure.OTHER


def is_sudo(stderr: str) -> bool:
    """The last word is sudo's own: what it was to run was not even begun."""
    return last(stderr).startswith("sudo: ")


def last(stderr: str) -> str:
    return stderr.strip().rpartition("\n")[2]


Lines = Mapping[str, "subprocess.Popen[str] | None"]
"""Spark → the ssh that leads to its probe, which waits for its question; None: there is no ssh."""


def dial(settings: Settings) -> Lines:
    """Open them. Where they are not asked, they end with this process: a probe without a question ends."""
    command = parcel.command("probe.py", "apply", limit=REMOTE_LIMIT)
    return {node.name: opened([*ssh.argv(node, settings.ssh), command]) for node in settings.nodes}


def opened(argv: list[str]) -> subprocess.Popen[str] | None:
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        return subprocess.Popen(argv, text=True, errors="replace", **pipes)
    except FileNotFoundError:
        return None


def ask(lines: Lines, questions: Mapping[str, str], *, stay: bool = False) -> dict[str, dict[str, Any]]:
    """Spark → {"facts": …, "noise": what the login shell printed around them} or {"error": {"kind", "detail"}}, with a
    kind of facts/failure.py.

    questions   Spark → what goes to its probe's standard input
    stay        they are to be used once more (remote/hold.py)
    """

    def one(name: str) -> dict[str, Any]:
        return answer(lines[name], questions[name], stays=stay)

    with ThreadPoolExecutor(max_workers=len(lines)) as pool:
        answers: Iterator[dict[str, Any]] = pool.map(one, lines)
        return dict(zip(lines, answers, strict=True))


def answer(
    process: subprocess.Popen[str] | None, question: str, limit: int = LIMIT, *, stays: bool = False
) -> dict[str, Any]:
    if process is None:
        return {"error": {"kind": Failure.NO_SSH, "detail": "no program `ssh` on this machine"}}
    try:
        talk = _first_answer if stays else subprocess.Popen.communicate
        stdout, stderr = talk(process, question, timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": {"kind": Failure.UNREACHABLE, "detail": f"no answer within {limit} s"}}
    if process.returncode:
        # Where the account may not log in, the shell says so on stdout.
        said = last(stderr) or last(stdout) or f"exit code {process.returncode}"
        kind = classify(process.returncode, stderr)
        if kind == Failure.HOST_KEY and (shown := FINGERPRINT.search(stderr)):
            said = shown[0]
        return {"error": {"kind": kind, "detail": said}}
    return read(stdout)


def _first_answer(process: subprocess.Popen[str], question: str, timeout: int) -> tuple[str, str]:
    """As `communicate`, to the end of its answer alone, where it does not end before."""
    assert process.stdout
    assert process.stderr
    late = threading.Event()

    def leave() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout, leave)
    timer.start()
    said = ""
    try:
        send(process, question)
        for line in process.stdout:
            said += line
            if END in line:
                return said, ""
        process.wait()
    finally:
        timer.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return said, process.stderr.read()


def send(process: subprocess.Popen[str], text: str) -> None:
    """A line to what runs there."""
    assert process.stdin
    # Where ssh has ended, its stderr says why.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{text}\n")
        process.stdin.flush()


def read(stdout: str) -> dict[str, Any]:
    """The answer out of what came back."""
    before, begin, rest = stdout.partition(BEGIN)
    answer, end, after = rest.rpartition(END)
    noise = f"{before} {after}".split()
    try:
        if not (begin and end):
            raise ValueError
        return {"facts": json.loads(answer), "noise": " ".join(noise)[:WORDS]}
    except ValueError:
        return {"error": {"kind": Failure.ANSWER, "detail": " ".join(stdout.split())[:WORDS]}}
