"""Wait until an endpoint answers, with progress; end at once, with every rank's log, when a rank has died.

Run as a program on the machine that runs Pulumi: `python3 -m components.readiness`. It keeps one SSH
connection per Spark, over which scripts/watch.py reports. Standard library only.

stdin   JSON: timeout (seconds), watches [{node, argv, parcel}]
stdout  progress lines.  stderr: on failure the reason and the last log lines of every rank
exit    0 the model has answered | 1 it never will | 2 not within `timeout`
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from typing import Any

EVERY = 10
"""Seconds between two progress lines while the logs say the same."""

LOST = 3
"""Seconds left to the other Sparks to say why when one reports an end."""


class Watch:
    """One Spark's reports, as they come."""

    def __init__(self, order: dict[str, Any], inbox: queue.Queue[tuple[str, dict[str, Any]]]) -> None:
        self.node = order["node"]
        self.process = subprocess.Popen(
            order["argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._run, args=(json.dumps(order["parcel"]), inbox), daemon=True).start()

    def _run(self, parcel: str, inbox: queue.Queue[tuple[str, dict[str, Any]]]) -> None:
        assert self.process.stdin and self.process.stdout and self.process.stderr
        try:
            self.process.stdin.write(parcel)
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # ssh has ended: its stderr says why
        for line in self.process.stdout:
            inbox.put((self.node, json.loads(line)))
        said = self.process.stderr.read().strip().splitlines()
        if self.process.wait():
            inbox.put((self.node, {"lost": said[-1] if said else f"ssh ended with {self.process.returncode}"}))

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def say(began: float, timeout: int, text: str) -> None:
    print(f"[{time.monotonic() - began:4.0f} s of {timeout}] {text}", flush=True)


def wait(order: dict[str, Any]) -> int:
    inbox: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    watches = [Watch(watch, inbox) for watch in order["watches"]]
    try:
        return follow(inbox, order["timeout"])
    finally:
        for watch in watches:
            watch.end()


def follow(inbox: queue.Queue[tuple[str, dict[str, Any]]], timeout: int) -> int:
    began = spoke = time.monotonic()
    newest: dict[tuple[str, str], str] = {}
    while True:
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            return fail(f"not ready within {timeout} s (serving.startupTimeout)", logs(newest), code=2)
        try:
            node, message = inbox.get(timeout=min(left, EVERY))
        except queue.Empty:
            say(began, timeout, "; ".join(logs(newest)) or "waiting for the first log line")
            spoke = time.monotonic()
            continue
        if "log" in message:
            container, line = message["log"]
            newest[node, container] = line
            if time.monotonic() - spoke > 2:
                say(began, timeout, f"{node}: {line[:160]}")
                spoke = time.monotonic()
        elif "health" in message:
            say(began, timeout, "/health answers; asking for a completion")
        elif "ready" in message:
            say(began, timeout, f"the model answers: {message['ready']['text'].strip()!r}")
            return 0
        elif "wrong" in message:
            return fail(message["wrong"], logs(newest))
        elif "lost" in message:
            return fail(f"{node}: the connection broke: {message['lost']}", logs(newest))
        elif "ended" in message:
            container, code, lines = message["ended"]
            return fail(f"{node}: {container} has ended with exit code {code}", [*others(inbox, newest, node), *lines])


def others(inbox: queue.Queue[tuple[str, dict[str, Any]]], newest: dict[tuple[str, str], str], node: str) -> list[str]:
    """What the other Sparks said last, with whatever is still on its way."""
    deadline = time.monotonic() + LOST
    while (left := deadline - time.monotonic()) > 0:
        try:
            other, message = inbox.get(timeout=left)
        except queue.Empty:
            break
        if "log" in message:
            newest[other, message["log"][0]] = message["log"][1]
    return logs({key: line for key, line in newest.items() if key[0] != node})


def logs(newest: dict[tuple[str, str], str]) -> list[str]:
    return [f"{node} {container}: {line[:160]}" for (node, container), line in sorted(newest.items())]


def fail(reason: str, lines: list[str], code: int = 1) -> int:
    print("\n".join([*(f"  {line}" for line in lines), reason]), file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(wait(json.load(sys.stdin)))
