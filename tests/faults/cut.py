"""The SSH connection of one script is cut while the script runs: its session's sshd on the Spark is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from simulator import sparks
from simulator.layout import Spark

WATCH = r"""
import os, select, signal, sys, time

name, verb, later = sys.argv[1], sys.argv[2], float(sys.argv[3])
seen = {}

def words(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.path.basename(word) for word in file.read().decode(errors="replace").split("\0")]
    except OSError:
        return []

def stat(pid):
    # comm and parent; the process may be gone
    try:
        with open(f"/proc/{pid}/stat") as file:
            head, tail = file.read().rsplit(")", 1)
        return head.split("(", 1)[1], int(tail.split()[1])
    except OSError:
        return "", 0

def session(pid):
    # its sshd: of the login user, and the privileged one above
    found = []
    while pid > 1:
        comm, parent = stat(pid)
        if comm.startswith("sshd"):
            found.append(pid)
        pid = parent
    return found[:2]

def runs(pid):
    found = words(pid)
    return name in found and (not verb or verb in found)

print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0.003)[0]:
    now = time.monotonic()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        # A process has its words a little after its beginning.
        if now - seen.setdefault(pid, now) > 5 or not runs(pid):
            continue
        time.sleep(later)
        doomed = session(pid) if runs(pid) else []
        for one in doomed:
            os.kill(one, signal.SIGKILL)
        if doomed:
            print("cut", flush=True)
            sys.exit()
        later = 0
"""
"""Runs on the Spark, as root, until standard input ends. Cuts once: `later` seconds after the script has begun, or at
the beginning of the next one, where that one had ended by then."""


class Cut:
    def __init__(self) -> None:
        self.done = False


@contextmanager
def cutting(spark: Spark, script: str, verb: str, later: float) -> Iterator[Cut]:
    """`script`: the name of a file in the command line, `verb`: another word of it, or ''. Afterwards the value says
    whether something was cut."""
    argv = [*sparks.inside_argv(spark), "python3", "-c", WATCH, script, verb, str(later)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout
        assert watch.stdout.readline() == "watching\n"
        cut = Cut()
        yield cut
        said, _ = watch.communicate()
        cut.done = said == "cut\n"
