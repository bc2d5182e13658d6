"""Probe all Sparks at once: one SSH round trip each, facts as JSON on stdout.

Run as a program, `python -m components.remote.ask`, because Pulumi's synchronous invokes run one after the
other: one of them probes all Sparks in parallel. Standard library only.

stdin   JSON: [{"name": node, "argv": [ssh …, command], "stdin": text}]
stdout  JSON: {node: {"facts": …, "noise": what the login shell printed around them} or {"error": {"kind", "detail"}}};
        kind: of facts/failure.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.facts.failure import Failure
from components.remote.parcel import BEGIN, END

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


def ask(target: dict[str, Any], limit: int = LIMIT) -> dict[str, Any]:
    try:
        done = subprocess.run(
            target["argv"], input=target["stdin"], capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"error": {"kind": Failure.UNREACHABLE, "detail": f"no answer within {limit} s"}}
    except FileNotFoundError:
        return {"error": {"kind": Failure.NO_SSH, "detail": "no program `ssh` on this machine"}}
    if done.returncode:
        # Where the account may not log in, the shell says so on stdout.
        said = last(done.stderr) or last(done.stdout) or f"exit code {done.returncode}"
        kind = classify(done.returncode, done.stderr)
        if kind == Failure.HOST_KEY and (shown := FINGERPRINT.search(done.stderr)):
            said = shown[0]
        return {"error": {"kind": kind, "detail": said}}
    return read(done.stdout)


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


def main() -> None:
    targets = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        results = dict(zip([target["name"] for target in targets], pool.map(ask, targets), strict=True))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
