"""Measure the fabric between every two Sparks, both ways, and refuse one that is slower than it should be.

A degraded ConnectX-7 carries 13 Gb/s while its link says 200 (NVIDIA's playbooks, pull request 108): nothing but a
measurement shows it. Run as a program on the machine that runs Pulumi, `python3 -m components.programs.qualification`,
and imported by `./spark doctor`. Standard library only.

stdin   JSON: sparks [{ssh (openssh.Target), given (input of scripts/bandwidth.py)}], seconds, minimum {perftest, tcp}
        (Gb/s)
stdout  one line per direction.  stderr: what is too slow, and what may be the cause
exit    0 fast enough | 1 not, or it could not be measured
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from components.programs import session

TOOLS = {"perftest": "RDMA (perftest)", "tcp": "TCP streams (no perftest on both Sparks: RDMA was not measured)"}

CAUSES = (
    "causes seen: a ConnectX-7 that needs its Spark switched off and unplugged for a minute; one twin without its "
    "cable or address; MTU 1500 on the way; a switch without flow control"
)

SLACK = 120
"""Seconds beside the measurement itself, after which a Spark ends its side."""


class Failed(Exception):
    """It could not be measured."""


@dataclass(frozen=True)
class Figure:
    """From one Spark to another."""

    source: str
    target: str
    tool: str
    gbps: float
    latency_us: float

    def __str__(self) -> str:
        route = f"{self.source} → {self.target}"
        return f"{route}: {self.gbps:.1f} Gb/s, {self.latency_us:.1f} µs by {TOOLS[self.tool]}"


class Side:
    """The script on one Spark."""

    def __init__(self, spark: dict[str, Any], seconds: int, **given: Any) -> None:
        self.node = spark["ssh"]["name"]
        given = {**spark["given"], "seconds": seconds, **given}
        self.process = session.start(spark["ssh"], "bandwidth.py", given, limit=seconds + SLACK)

    def next(self) -> dict[str, Any]:
        """Its next message."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.node}: {session.last_words(self.process, 'it ended without a word')}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(order: dict[str, Any]) -> Iterator[Figure]:
    """One direction after the other, so that none disturbs another. Raises Failed."""
    sparks, seconds = order["sparks"], order["seconds"]
    asked = [Side(spark, seconds, role="ask") for spark in sparks]
    tool = "perftest" if all(side.next()["perftest"] for side in asked) else "tcp"
    for side in asked:
        side.end()
    if not order["minimum"][tool]:
        return
    for source, target in permutations(sparks, 2):
        server = Side(target, seconds, role="serve", tool=tool)
        try:
            server.next()
            client = Side(source, seconds, role="measure", tool=tool, peer=target["given"]["address"])
            try:
                found = client.next()
            finally:
                client.end()
        finally:
            server.end()
        yield Figure(client.node, server.node, tool, found["gbps"], found["latency_us"])


def too_slow(figure: Figure, minimum: dict[str, float]) -> str:
    """What is wrong with it; '' for nothing."""
    least = minimum[figure.tool]
    if figure.gbps >= least:
        return ""
    key = "fabric.minRdmaGbps" if figure.tool == "perftest" else "fabric.minTcpGbps"
    return f"{figure}: less than {least:g} Gb/s ({key})"


def main() -> int:
    order = json.load(sys.stdin)
    slow = []
    try:
        for figure in measure(order):
            print(figure, flush=True)
            slow.append(too_slow(figure, order["minimum"]))
    except Failed as failed:
        print(f"the fabric could not be measured: {failed}", file=sys.stderr)
        return 1
    wrong = [text for text in slow if text]
    if wrong:
        print(*wrong, CAUSES, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
