"""Wait until an endpoint answers, with progress; end at once, with every rank's log, when a rank has died.

Run as a program on the machine that runs Pulumi: `python3 -m components.programs.readiness`. It keeps one SSH
connection per Spark, over which scripts/watch.py reports. Standard library only.

stdin   JSON: stack (its short name), engine, timeout (seconds), rdma (`require` or `warn`), ranks [nodes whose
        containers tell which network NCCL uses], watches [{ssh (openssh.Target), inputs (of scripts/watch.py)}]
stdout  progress lines.  stderr: on failure the reason and the last log lines of every rank
exit    0 the model has answered | 1 it never will | 2 not within `timeout`
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.programs import session, startups
from components.programs.hints import hints

EVERY = 10
"""Seconds between two progress lines, at least: of a failed command Pulumi shows them all again."""

SLACK = 120
"""Seconds beside `timeout` after which a Spark ends its watch by itself."""

LAST_WORDS = 2
"""Seconds left to the other Sparks to show their logs when one reports an end."""

WIDTH = 200
"""Characters of a log line that are shown as progress. A failure's lines are shown whole."""

SERVED, FORMER = ".spark/served", ".spark/served-before"
"""Folders in the project: the last configuration of each stack that served, and the one before it, for
`./spark rollback`. Stack files as they are: their secrets are encrypted."""

LAST_LINES = 40
"""Of each log, shown when the endpoint fails; hints look at all that came."""

REASON = re.compile(r"^(?!.*\b(?:INFO|WARNING) \d).*(?:\b\w*(?:Error|Exception): \S|\b(?:FATAL|CRITICAL)\b)")
REASONS = 5
"""Lines above the last ones that name an error; a traceback's own come one after the other, the first cause first."""

Inbox = queue.Queue[tuple[str, dict[str, Any]]]
"""(node, one message of watch.py)"""

Networks = dict[tuple[str, str], dict[str, Any]]
"""(node, host name of the rank's Spark) → what its NCCL says of its network (scripts/shared/nccl_log.py). The head's
log may carry the ranks of all."""

Tails = dict[tuple[str, str], list[str]]
"""(node, container) → the last lines of its log."""


LAST = {"ready", "ended", "wrong"}
"""Kinds of messages after which watch.py ends."""


def report(line: str) -> dict[str, Any]:
    """A message of watch.py; {} where the line is something else: a login shell's words, an interpreter's."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


class Watch:
    """One Spark's reports, as they come."""

    def __init__(self, watch: dict[str, Any], limit: int, inbox: Inbox) -> None:
        self.node = watch["ssh"]["name"]
        self.process = session.start(watch["ssh"], "watch.py", watch["inputs"], limit=limit)
        self.reader = threading.Thread(target=self._run, args=(inbox,), daemon=True)
        self.reader.start()

    def _run(self, inbox: Inbox) -> None:
        assert self.process.stdout
        done, noise = False, "ssh ended without a word"
        for line in self.process.stdout:
            if message := report(line):
                done = done or bool(message.keys() & LAST)
                inbox.put((self.node, message))
            else:
                noise = line.strip() or noise
        said = session.last_words(self.process, noise)
        if self.process.wait() or not done:
            inbox.put((self.node, {"lost": said}))

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def say(began: float, timeout: int, text: str) -> None:
    print(f"[{time.monotonic() - began:4.0f} s of {timeout}] {text}", flush=True)


def wait(order: dict[str, Any]) -> int:
    inbox: Inbox = queue.Queue()
    watches = [Watch(watch, order["timeout"] + SLACK, inbox) for watch in order["watches"]]
    try:
        starts = startups.Starts(Path(), order["stack"])
        code = follow(inbox, order["engine"], order["timeout"], order["rdma"], set(order["ranks"]), starts)
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


def follow(inbox: Inbox, engine: str, timeout: int, rdma: str, ranks: set[str], starts: startups.Starts) -> int:
    began = spoke = time.monotonic()
    told = ""
    tails: Tails = {}
    networks: Networks = {}
    while True:
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            return fail(engine, f"not ready within {timeout} s (serving.startupTimeout)", tails, code=2)
        try:
            node, message = inbox.get(timeout=min(left, EVERY))
        except queue.Empty:
            node, message = "", {}
        if "log" in message:
            container, lines = message["log"]
            tails[node, container] = lines
        elif "nccl" in message:
            note(networks, node, message)
        elif "begun" in message:
            if usual := startups.usual(starts.former(message["begun"])):
                say(began, timeout, f"former starts of this configuration: first answer after {usual}")
        elif "health" in message:
            say(began, timeout, "/health answers; asking for an answer")
        elif "ready" in message:
            say(began, timeout, f"the model answers: {message['ready']['text'].strip()!r}")
            if startup := message["ready"]["startup"]:
                say(began, timeout, f"since the server's start: {startups.in_words(startup)}")
                starts.remember(startup)
            listen(inbox, networks, ranks)
            for line in spoken(networks, ranks):
                say(began, timeout, line)
            return verdict(networks, rdma)
        elif message:
            collect(inbox, tails)
            return fail(engine, reason(node, message), tails)
        text, now = newest(tails), time.monotonic()
        if now - spoke >= silence(now - began, new=text != told):
            say(began, timeout, text)
            told, spoke = text, now


def silence(elapsed: float, *, new: bool) -> int:
    """Seconds until the newest log line is said: one that was said already, less often the longer it all takes (as
    scripts/shared/progress.py has it)."""
    return EVERY if new else 10 if elapsed < 60 else 30 if elapsed < 600 else 60


def note(networks: Networks, node: str, message: dict[str, Any]) -> None:
    for rank in message["nccl"]:
        networks[node, rank["host"]] = rank


def unheard(networks: Networks, ranks: set[str]) -> set[str]:
    """Nodes whose containers have not said yet which network NCCL uses."""
    return ranks - {node for (node, _), rank in networks.items() if rank["network"]}


def listen(inbox: Inbox, networks: Networks, ranks: set[str]) -> None:
    """What the other Sparks' ranks say of NCCL's network, where their watch has not come by since."""
    deadline = time.monotonic() + LAST_WORDS
    while unheard(networks, ranks) and (left := deadline - time.monotonic()) > 0:
        try:
            node, message = inbox.get(timeout=left)
        except queue.Empty:
            return
        if "nccl" in message:
            note(networks, node, message)


def spoken(networks: Networks, ranks: set[str]) -> Iterator[str]:
    """A line for each rank that has said something of its network, or should have."""
    for (_, host), rank in sorted(networks.items()):
        state = f" ({rank['finding']})" if rank["finding"] else "" if rank["proven"] else " (chosen)"
        if rank["network"] or rank["finding"]:
            yield f"{host}: NCCL is on {rank['network'] or 'nothing'}{state}"
    for node in sorted(unheard(networks, ranks)):
        yield f"{node}: NCCL has not said which network it uses (NCCL_DEBUG=INFO is needed)"


def verdict(networks: Networks, rdma: str) -> int:
    """The model answers; are all ranks' NCCL on RDMA, after all checks?"""
    slow = sorted({host for (_, host), rank in networks.items() if rank["network"] == "Socket"})
    if not slow:
        return 0
    text = f"NCCL is on sockets and not on RDMA ({', '.join(slow)}): 10-20 times slower; ./spark doctor"
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


def shown(lines: list[str]) -> list[str]:
    """The end of a log and, of what is above it, what names a reason."""
    above, last = lines[:-LAST_LINES], lines[-LAST_LINES:]
    reasons = list(dict.fromkeys(line for line in above if REASON.search(line)))[-REASONS:]
    return [*reasons, "…", *last] if reasons else last


def fail(engine: str, reason: str, tails: Tails, code: int = 1) -> int:
    for (node, container), lines in sorted(tails.items()):
        print(f"  {node} {container}:", *(f"    {line}" for line in shown(lines)), sep="\n", file=sys.stderr)
    logs = [reason, *("\n".join(lines) for lines in tails.values())]
    print(reason, *(f"  → {remedy}" for remedy in hints(engine, logs)), sep="\n", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(wait(json.load(sys.stdin)))
