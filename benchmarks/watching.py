"""What is seen of a command while it runs: its seconds and memory, connections to the Sparks, and what a client of the
API notices."""

from __future__ import annotations

import http.client
import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from simulator import sparks
from simulator.layout import USER, Spark

OFTEN = 0.1
"""Seconds between a client's requests."""


@dataclass
class Seen:
    """Of one command."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds of processors, of all its processes."""

    memory: float = 0.0
    """MB of the largest Python process, at its largest: the program's."""


@contextmanager
def watched(folder: Path) -> Iterator[Seen]:
    """What runs meanwhile; `folder`: where the command runs."""
    seen, ended = Seen(), threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            seen.memory = max(seen.memory, *map(memory, pythons(folder)), 0.0)

    watcher = threading.Thread(target=look)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    watcher.start()
    try:
        yield seen
    finally:
        seen.seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seen.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        ended.set()
        watcher.join()


def pythons(folder: Path) -> list[Path]:
    """/proc/PID of the Python processes that run in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and b"python" in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def memory(process: Path) -> float:
    """MB, at its largest; 0 when it is gone."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")), 0.0)


def connections(spark: Spark) -> int:
    """To its sshd, so far."""
    return sparks.inside(spark, "cat", "/var/log/sshd.log").count("Accepted publickey")


def staying(spark: Spark) -> int:
    """Processes of the account that we log in with, but for the one that asks."""
    return len(sparks.inside(spark, "pgrep", "-u", USER, check=False).split())


@dataclass
class Client:
    """Asks every `OFTEN` seconds, as users do who do not know that something happens."""

    base: str
    model: str
    answered: list[float] = field(default_factory=list)
    """When answers came."""

    lost: int = 0
    """Requests that were accepted and never answered."""

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Client:
        self._asker = threading.Thread(target=self._ask_on)
        self._asker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._asker.join()
        for thread in self._threads:
            thread.join()

    def _ask_on(self) -> None:
        while not self._ended.wait(OFTEN):
            thread = threading.Thread(target=self._ask)
            thread.start()
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def _ask(self) -> None:
        place = urlsplit(self.base)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
        try:
            connection.connect()
        except OSError:
            return
        body = json.dumps({"model": self.model, "prompt": "Hello", "max_tokens": 5})
        try:
            connection.request("POST", f"{place.path}/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.lost += 1
            return
        finally:
            connection.close()
        if answer.status == 200:
            self.answered.append(time.monotonic())

    def answers_again(self) -> None:
        """Wait for an answer to a request of after now."""
        now = time.monotonic()
        sparks.wait_for(lambda: max(self.answered, default=0) > now, "an answer", limit=120)

    def silence(self) -> float:
        """Seconds of the longest time without an answer."""
        when = sorted(self.answered)
        return max((after - before for before, after in pairwise(when)), default=0.0)


def cores() -> int:
    return os.cpu_count() or 1
