"""What the simulated Sparks and a client of the API notice while something runs."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal
from urllib.parse import urlsplit

from simulator import sparks
from simulator.layout import USER, Spark

OFTEN = 0.1
"""Seconds between a client's requests."""

SHORT: Mapping[str, Any] = {"max_tokens": 5}
"""Of a request, beside its model and prompt."""

LONG: Mapping[str, Any] = {"max_tokens": 50, "stream": True}
"""Of one that is answered for seconds by an engine that takes its time for each word."""

UNAVAILABLE = 503
"""A server that starts or ends says so and accepts nothing."""

Outcome = Literal["answered", "refused", "lost"]
"""lost: it was accepted, and no answer, half of one, or an error of the server's came. refused: all else."""


def connections(spark: Spark) -> int:
    """To its sshd, so far."""
    return sparks.inside(spark, "cat", "/var/log/sshd.log").count("Accepted publickey")


def staying(spark: Spark) -> int:
    """Processes of the account that we log in with, but for the one that asks."""
    return len(sparks.inside(spark, "pgrep", "-u", USER, check=False).split())


def root(spark: Spark) -> int:
    """PID here of its first process."""
    return int((spark.home / "pid").read_text())


def ask(base: str, model: str, more: Mapping[str, Any]) -> Outcome:
    """For one completion. `more`: of the request."""
    place = urlsplit(base)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    try:
        connection.connect()
    except OSError:
        return "refused"
    body = json.dumps({"model": model, "prompt": "Hello", **more})
    try:
        connection.request("POST", f"{place.path}/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException):
        return "lost"
    finally:
        connection.close()
    if answer.status == 200:
        return "answered" if not more.get("stream") or is_whole(said) else "lost"
    return "lost" if answer.status >= 500 and answer.status != UNAVAILABLE else "refused"


def is_whole(stream: bytes) -> bool:
    """One that breaks off ends like one that does not; and what goes wrong on the way is one of its events."""
    events = stream.strip().split(b"\n\n")
    return events[-1] == b"data: [DONE]" and not any(event.startswith(b'data: {"error"') for event in events)


@dataclass
class Client:
    """Asks every `OFTEN` seconds, as users do who do not know that something happens."""

    base: str
    model: str
    long: bool = False
    """One request after the other, each for seconds."""

    answered: list[float] = field(default_factory=list)
    """When answers came."""

    took: list[float] = field(default_factory=list)
    """Seconds of each of them."""

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._outcomes: list[Outcome] = []

    @property
    def lost(self) -> int:
        """Requests that were accepted and never answered."""
        return self._outcomes.count("lost")

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
            if self.long:
                self._ask()
                continue
            thread = threading.Thread(target=self._ask)
            thread.start()
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def _ask(self) -> None:
        began = time.monotonic()
        outcome = ask(self.base, self.model, LONG if self.long else SHORT)
        self._outcomes.append(outcome)
        if outcome == "answered":
            self.answered.append(time.monotonic())
            self.took.append(self.answered[-1] - began)

    def answers_again(self) -> None:
        """Wait for an answer to a request of after now."""
        now = time.monotonic()
        sparks.wait_for(lambda: max(self.answered, default=0) > now, "an answer", limit=120)

    def silence(self) -> float:
        """Seconds of the longest time without an answer."""
        when = sorted(self.answered)
        return max((after - before for before, after in pairwise(when)), default=0.0)
