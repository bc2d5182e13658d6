"""Wait until an endpoint answers, with progress; end at once, with every rank's log, when a rank has died.

Run as a program on the machine that runs Pulumi: `python3 -m components.programs.readiness`. It keeps one SSH
connection per Spark, over which scripts/watch.py reports. Standard library only.

stdin   JSON: stack (its short name), timeout (seconds), rdma (`require` or `warn`), ranks [nodes whose containers tell
        which network NCCL uses], watches [{node, argv, parcel}]
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EVERY = 10
"""Seconds between two progress lines while the logs say the same."""

LAST_WORDS = 2
"""Seconds left to the other Sparks to show their logs when one reports an end."""

WIDTH = 200
"""Characters of a log line that are shown."""

SERVED, FORMER = ".spark/served", ".spark/served-before"
"""Folders in the project: the last configuration of each stack that served, and the one before it, for
`./spark rollback`. Stack files as they are: their secrets are encrypted."""

HINTS = (
    (
        "invalid device context",
        "FlashInfer's fused all-reduce does not work between Sparks: serving.extraArgs ['--enable-dp-attention']",
    ),
    (
        "Free memory on device",
        "something else holds the Spark's memory (./spark status), or serving.gpuMemoryUtilization is too high",
    ),
    ("out of memory", "lower serving.gpuMemoryUtilization or serving.maxModelLen, or use more Sparks"),
    ("No space left on device", "free space on that Spark: ./spark prune, docker system df"),
    (
        "ibv_modify_qp failed",
        "the GID index is not what it was (a reboot?): pulumi up detects it again; ./spark doctor",
    ),
    ("unrecognized arguments", "this version of the engine has no such option: correct serving.extraArgs"),
    ("trust_remote_code", "the model brings code of its own: pulumi config set --path serving.trustRemoteCode true"),
    ("no kernel image is available", "the image was not built for GB10 (sm_121): choose another image.name"),
    ("Address already in use", "another program has that port: ./spark doctor names it"),
)
"""Words of an engine's log → what to do. Sources: the troubleshooting tables of the projects for Spark clusters, and
the engines' own messages."""

Inbox = queue.Queue[tuple[str, dict[str, Any]]]
"""(node, one message of watch.py)"""

Tails = dict[tuple[str, str], list[str]]
"""(node, container) → the last lines of its log."""


class Watch:
    """One Spark's reports, as they come."""

    def __init__(self, order: dict[str, Any], inbox: Inbox) -> None:
        self.node = order["node"]
        self.process = subprocess.Popen(
            order["argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._run, args=(json.dumps(order["parcel"]), inbox), daemon=True).start()

    def _run(self, parcel: str, inbox: Inbox) -> None:
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
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
    inbox: Inbox = queue.Queue()
    watches = [Watch(watch, inbox) for watch in order["watches"]]
    try:
        code = follow(inbox, order["timeout"], order["rdma"], set(order["ranks"]))
        if code == 0:
            keep(order["stack"])
        return code
    finally:
        for watch in watches:
            watch.end()


def keep(stack: str) -> None:
    """The stack's configuration has served: remember it."""
    present, served, former = Path(f"Pulumi.{stack}.yaml"), Path(SERVED, f"{stack}.yaml"), Path(FORMER, f"{stack}.yaml")
    if not present.exists() or (served.exists() and served.read_bytes() == present.read_bytes()):
        return
    for path in (served, former):
        path.parent.mkdir(parents=True, exist_ok=True)
    if served.exists():
        served.replace(former)
    served.write_bytes(present.read_bytes())


def follow(inbox: Inbox, timeout: int, rdma: str, ranks: set[str]) -> int:
    began = spoke = time.monotonic()
    tails: Tails = {}
    networks: dict[str, str] = {}
    while True:
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            return fail(f"not ready within {timeout} s (serving.startupTimeout)", tails, code=2)
        try:
            node, message = inbox.get(timeout=min(left, EVERY))
        except queue.Empty:
            node, message = "", {}
        if "log" in message:
            container, lines = message["log"]
            tails[node, container] = lines
        elif "transport" in message:
            networks[node] = message["transport"][1]
        elif "health" in message:
            say(began, timeout, "/health answers; asking for a completion")
        elif "ready" in message:
            say(began, timeout, f"the model answers: {message['ready']['text'].strip()!r}")
            listen(inbox, networks, ranks)
            for spark, network in sorted(networks.items()):
                say(began, timeout, f"{spark}: NCCL is on {network}")
            return verdict([spark for spark, network in networks.items() if network == "Socket"], rdma)
        elif message:
            collect(inbox, tails)
            return fail(reason(node, message), tails)
        if time.monotonic() - spoke >= EVERY:
            say(began, timeout, newest(tails))
            spoke = time.monotonic()


def listen(inbox: Inbox, networks: dict[str, str], ranks: set[str]) -> None:
    """What the other Sparks' ranks say of NCCL's network, where their watch has not come by since."""
    deadline = time.monotonic() + LAST_WORDS
    while ranks - set(networks) and (left := deadline - time.monotonic()) > 0:
        try:
            node, message = inbox.get(timeout=left)
        except queue.Empty:
            return
        if "transport" in message:
            networks[node] = message["transport"][1]


def verdict(slow: Sequence[str], rdma: str) -> int:
    """The model answers; `slow`: nodes whose NCCL is on sockets in spite of all checks."""
    if not slow:
        return 0
    text = f"NCCL is on sockets and not on RDMA ({', '.join(sorted(slow))}): 10-20 times slower; ./spark doctor"
    if rdma == "require":
        print(f"{text} (fabric.rdma require)", file=sys.stderr, flush=True)
        return 1
    print(f"WARNING: {text}", flush=True)
    return 0


def reason(node: str, message: dict[str, Any]) -> str:
    if "ended" in message:
        return f"{node}: {message['ended'][0]} {message['ended'][1]}"
    if "lost" in message:
        return f"{node}: the connection broke: {message['lost']}"
    return str(message["wrong"])


def collect(inbox: Inbox, tails: Tails) -> None:
    """What the other Sparks still have to say."""
    deadline = time.monotonic() + LAST_WORDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            node, message = inbox.get(timeout=left)
        except queue.Empty:
            return
        if "log" in message:
            tails[node, message["log"][0]] = message["log"][1]


def newest(tails: Tails) -> str:
    """The server's last line: it carries those of all ranks."""
    lines = [lines[-1] for (_, container), lines in sorted(tails.items()) if lines and "-server" in container]
    return lines[-1][:WIDTH] if lines else "waiting for the first log line"


def fail(reason: str, tails: Tails, code: int = 1) -> int:
    for (node, container), lines in sorted(tails.items()):
        print(f"  {node} {container}:", *(f"    {line[:WIDTH]}" for line in lines), sep="\n", file=sys.stderr)
    print(reason, *hints(reason, tails), sep="\n", file=sys.stderr, flush=True)
    return code


def hints(reason: str, tails: Tails) -> list[str]:
    """What is known to help against what the logs say."""
    said = "\n".join([reason, *(line for lines in tails.values() for line in lines)]).lower()
    return [f"  → {remedy}" for words, remedy in HINTS if words.lower() in said]


if __name__ == "__main__":
    sys.exit(wait(json.load(sys.stdin)))
