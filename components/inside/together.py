"""Main process of each of a server's containers: the ranks of one server start, stop and fail together.

An engine's rank that dies leaves the others hanging (vLLM's /health stays 200, a headless rank outlives its
head), and a rank that Docker starts alone finds no peers. So rank 0 leads: it starts the engine on all ranks
once all are there, and when one has ended or is lost, stops all, waits a little and starts all again. After
RESTARTS failures in a row it gives up: every rank's container ends with exit code 0, which Docker leaves alone
(restart policy on-failure), with the reason as its last line. A container that ends in any other way (killed,
a reboot) is started by Docker, and joins again.

A rank and rank 0 prove to each other that they know the server's key before either listens to the other: each signs
what the other has just made up (HMAC-SHA256), so what passes on the wire is of no use a second time.

Runs inside the engine's image: Python 3.10+, standard library only.

usage   together.py --rank R --names NODE,NODE… [--address HOST:PORT --key FILE] [--restarts N] [--pause SECONDS]
                    [--health URL] [--ask JSON] [--needs COMMAND] [--weights DIRECTORY] [--alias PATH]
                    [--compiled DIRECTORY] [--drain SECONDS] -- COMMAND…
        --key     a secret that all ranks of the stack have and nobody else; any text
        --pause   before the first restart, doubled for each further one
        --health  answers 200 when the engine serves
        --ask     what it must be able to answer from then on: fields of pulse.Question (pulse.py lies beside this file)
        --needs   must succeed before the engine is started
        --weights that the engine loads (drop_pages)
        --compiled  where the engine keeps what it compiled (start_clean)
        --drain   that an engine which is told to end has for the requests that it has accepted
        --alias   another path at which the engine finds them, for one that serves a model under its directory's name
env     DGX_SPARK_SERVER   what tells this server's ranks from those of another one
exit    0 gave up | 143 was told to end
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hmac
import http.client
import json
import os
import queue
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

BEAT = 3
"""Seconds between two signs of life."""

FREEBIND = 15
"""IP_FREEBIND of linux/in.h, which Python's socket has no name for: bind to an address that is not there (ip(7))."""

SILENCE = 15
"""Seconds without one after which a rank counts as lost."""

GRACE = 20
"""Seconds from SIGTERM to SIGKILL, beside those for requests; a remote rank of vLLM takes about 11 (measured, vLLM
0.32)."""

REQUESTS = re.compile(
    r"^\w+:(?:num_requests_running|num_requests_waiting|num_running_reqs|num_queue_reqs)(?:\{.*\})? (\S+)$",
    re.MULTILINE,
)
"""How many an engine has accepted and not answered. Source: vllm/v1/metrics/loggers.py of vLLM 0.19,
sglang/srt/observability/metrics_collector.py of SGLang 0.5."""

STARTING = 120
"""Seconds within which a rank that is told to start says that it has. One that says nothing, though it is there, waits
for what does not end (a GPU's driver that hangs), and the others must not wait with it."""

LONGEST_WAIT = 60
"""Seconds before a restart, at most."""

STEADY = 600
"""Seconds of serving after which earlier failures no longer count."""

AGAIN = 60
"""Seconds between two lines that say the same."""

LONGEST_LINE = 4096
"""Characters of a message, at most: nobody fills our memory before proving who it is."""

STRANGERS = 16
"""Connections at once of those who have not proven yet who they are; a further one ends the oldest."""

SAID = {"started", "stopped", "ended", "leaving"}
"""What a rank may say to rank 0."""

REFUSALS = {"server": "this is another server", "key": "the key of this rank is not its server's"}
"""What rank 0 says to whom it does not let in → what that one shows. Never the other side's own words: until it has
proven itself, it may be anybody."""

PR_SET_CHILD_SUBREAPER = 36


def say(text: str) -> None:
    """One line of the container's log; scripts/watch.py looks for the prefix."""
    print(f"dgx-spark: {text}", flush=True)


Event = tuple[str, int, Any]
"""(kind, rank, what came with it)"""


class Told(Exception):
    """Docker wants this container to end."""


class Link:
    """A connection between two ranks: JSON lines both ways, with signs of life."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(SILENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = connection.makefile("r", encoding="utf-8")
        self.lock = threading.Lock()
        self.closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, **message: object) -> None:
        """Best effort: a link that is gone shows in `messages`."""
        with self.lock:
            try:
                self.connection.sendall((json.dumps(message) + "\n").encode())
            except OSError:
                self.closed.set()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the other side says, until it is silent, gone or makes no sense."""
        try:
            while line := self.stream.readline(LONGEST_LINE):
                message = json.loads(line)
                if not isinstance(message, dict):
                    return
                if "beat" not in message:
                    yield message
        except (OSError, ValueError, RecursionError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Whoever waits for a message gets none: to close alone would leave the socket to the stream that reads it."""
        self.closed.set()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    @contextlib.contextmanager
    def soon(self) -> Iterator[None]:
        """Within `SILENCE` seconds, or the link is closed: signs of life alone prove nothing."""
        timer = threading.Timer(SILENCE, self.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _beat(self) -> None:
        while not self.closed.wait(BEAT):
            self.send(beat=True)


class Key:
    """What all ranks of a stack know and nobody else."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as stream:
            self._secret = stream.read()

    def proof(self, role: str, rank: int, asked: object, asking: str) -> str:
        """That `role` (`rank` or `lead`) of this very server knows the key.

        asked   what rank 0 made up for this connection.  asking  what the other rank did
        """
        words = json.dumps([role, mark(), rank, asked, asking]).encode()
        return hmac.new(self._secret, words, "sha256").hexdigest()

    def proves(self, claim: object, role: str, rank: int, asked: object, asking: str) -> bool:
        return hmac.compare_digest(str(claim).encode(), self.proof(role, rank, asked, asking).encode())


class Engine:
    """The engine's process on this rank, started and ended as often as it takes."""

    def __init__(self, options: argparse.Namespace, ended: Callable[[subprocess.Popen[bytes], int], None]) -> None:
        self.command, self.weights, self.ended = options.command, options.weights, ended
        self.compiled = options.compiled
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, clean: bool) -> None:
        """`clean`: with nothing that was compiled before."""
        drop_pages(self.weights)
        if clean and self.compiled:
            start_clean(self.compiled)
        self.process = subprocess.Popen(self.command, start_new_session=True)
        threading.Thread(target=self._wait, args=(self.process,), daemon=True).start()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        self.ended(process, process.wait())

    def stop(self, drain: int = 0) -> None:
        """End it and whatever it has started. `drain`: seconds that it may take for its requests, if it does."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(drain + GRACE)
            except subprocess.TimeoutExpired:
                say(f"the engine is still there after {drain + GRACE} s: killing it")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        while True:
            try:
                process.wait(AGAIN)
                break
            except subprocess.TimeoutExpired:
                say("FAILED: the engine does not end, not even when it is killed; reboot this Spark")
        end_orphans()


def drop_pages(directory: str) -> None:
    """Let the page cache go of what was read to verify the weights, or by an engine that ran before.

    CPU and GPU of a GB10 share one memory, and an engine that is about to load wants to find it free.
    """
    for base, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError), open(os.path.join(base, name), "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start_clean(directory: str) -> None:
    """An engine that ended before it served may have stumbled over what it had compiled: it compiles anew. Weights that
    are mounted below the directory stay (read-only, too)."""
    say("the engine ended before it served: what it had compiled goes, in case it was that")
    weights = os.environ.get("HF_HOME", "")
    entries: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError):
        entries = list(os.scandir(directory))
    for entry in entries:
        if f"{weights}/".startswith(f"{entry.path}/"):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def link(target: str, path: str) -> None:
    """A container that Docker starts again has it already; it may have been made for another model."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.symlink(target, path)


def adopt_orphans() -> None:
    """What the engine leaves behind becomes our child, so that it can be ended. Source: prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """A process that left the engine's group would keep the GPU's memory."""
    while children := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == os.getpid()]:
        for pid in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return int(stream.read().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


def listener(address: tuple[str, int]) -> socket.socket:
    """Also where this Spark does not have the address yet: it gets it with a carrier, when the Spark at the other end
    of the cable is on."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IP, FREEBIND, 1)
    made.bind(address)
    made.listen()
    return made


class Lead:
    """Rank 0."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.inbox: queue.Queue[Event] = queue.Queue()
        self.engine = Engine(options, lambda process, code: self.inbox.put(("ended", 0, (process, code))))
        self.links: dict[int, Link] = {}
        self.served = 0.0
        """When the engine was first seen healthy in this attempt; 0: not yet."""

        self.ended = False
        """An engine ended by itself in this attempt."""

        self.left = False
        """Docker wants another rank's container to end, which waits for us to have answered."""

        self.pulse: Any = None
        self.strangers: deque[Link] = deque()
        if len(options.names) > 1:
            self.key = Key(options.key)
            threading.Thread(target=self._accept, args=(listener(options.address),), daemon=True).start()

    def run(self) -> int:
        failures = 0
        while True:
            self._gather()
            clean = self.ended and not self.served
            self.served, self.ended, self.left, self.pulse = 0.0, False, False, None
            reason = self._needs() or self._serve(clean)
            steady = self._worked_for() > STEADY
            self._stop()
            failures = 1 if steady else failures + 1
            if failures > self.options.restarts:
                text = f"FAILED: {reason}; gave up after {failures} starts"
                for link in self.links.values():
                    link.send(give_up=text)
                say(text)
                return 0
            wait = min(LONGEST_WAIT, self.options.pause * 2 ** (failures - 1))
            say(f"FAILED: {reason}; all ranks start again in {wait} s ({failures} of {self.options.restarts})")
            self._pause(wait)

    def tell(self) -> None:
        """Docker wants this container to end."""
        self.inbox.put(("told", 0, None))

    def _gather(self) -> None:
        """Until every rank is there."""
        said = 0.0
        while missing := [self._name(r) for r in range(1, len(self.options.names)) if r not in self.links]:
            if time.monotonic() - said > AGAIN:
                say(f"waiting for {', '.join(missing)}")
                said = time.monotonic()
            self._next(1)

    def _needs(self) -> str:
        """What must hold before the engine starts; '' when it does."""
        if not self.options.needs:
            return ""
        say("looking for what the engine needs")
        asked = subprocess.Popen(shlex.split(self.options.needs), stderr=subprocess.PIPE, text=True)
        try:
            while asked.poll() is None:
                self._next(1)
        finally:
            asked.kill()
        said = asked.communicate()[1].strip().splitlines()
        return "" if asked.returncode == 0 else (said or ["not everything is there"])[-1]

    def _serve(self, clean: bool) -> str:
        """Start everywhere; returns why it ended. `clean`: with nothing that was compiled before."""
        waiting = set(range(1, len(self.options.names)))
        if lost := [self._name(rank) for rank in waiting - set(self.links)]:
            return f"{lost[0]} is lost"
        say("starting the engine on every rank")
        for link in self.links.values():
            link.send(start=True, clean=clean)
        deadline = time.monotonic() + STARTING
        while waiting:
            event = self._next(1)
            if event and event[0] == "started":
                waiting.discard(event[1])
            elif event and (reason := self._reason(event)):
                return reason
            elif time.monotonic() > deadline:
                return f"{self._name(min(waiting))} has not started within {STARTING} s, though it is there"
        self.engine.start(clean=clean)
        while True:
            event = self._next(BEAT)
            if event and (reason := self._reason(event)):
                return reason
            if not event and not self.served and self._healthy():
                self.served = time.monotonic()
                self._feel()

    def _feel(self) -> None:
        """From now on the engine must work, not only say that it is well."""
        if not self.options.ask:
            return
        import pulse

        self.pulse = pulse.Pulse(pulse.Question(**self.options.ask))
        threading.Thread(target=self._until_stuck, args=(self.pulse, self.engine.process), daemon=True).start()

    def _until_stuck(self, pulse: Any, process: subprocess.Popen[bytes]) -> None:
        if pulse.until_stuck():
            self.inbox.put(("stuck", 0, process))

    def _worked_for(self) -> float:
        """Seconds that the engine has served in this attempt; where it is asked, until it last answered."""
        last = self.pulse.answered if self.pulse else time.monotonic()
        return max(0.0, last - self.served) if self.served else 0.0

    def _reason(self, event: Event) -> str:
        """Why all must stop; '' where it is no reason."""
        kind, rank, value = event
        if kind == "lost":
            return f"{self._name(rank)} is lost"
        if kind == "leaving":
            self.left = True
            return f"{self._name(rank)} was told to end"
        if kind == "ended" and rank:
            self.ended = True
            return f"{self._name(rank)} ended with exit code {value}"
        if kind == "ended" and value[0] is self.engine.process:
            self.ended = True
            return f"{self._name(0)} ended with exit code {value[1]}"
        if kind == "stuck" and value is self.engine.process:
            limit = self.options.ask["limit"]
            return f"the engine is stuck: /health answers, but no request was answered within {limit:.0f} s"
        return ""

    def _stop(self) -> None:
        waiting = set(self.links)
        self._end(drain=self.left)
        deadline = time.monotonic() + GRACE + SILENCE
        while waiting & set(self.links) and time.monotonic() < deadline:
            event = self._next(1)
            # One that was lost has nothing to stop, even where it has joined again since.
            if event and event[0] in ("stopped", "lost"):
                waiting.discard(event[1])

    def _end(self, *, drain: bool) -> None:
        """The engine on all ranks. `drain`: after it has answered what it has accepted, for which it needs them all."""
        if self.pulse:
            self.pulse.ended.set()
        if drain and self._busy():
            say(f"answering what was accepted, within {self.options.drain} s")
            self.engine.stop(self.options.drain)
        for link in self.links.values():
            link.send(stop=True)
        self.engine.stop()

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._next(left)

    def _next(self, limit: float) -> Event | None:
        """The next event within `limit` seconds, else None. Keeps the list of links."""
        try:
            event = self.inbox.get(timeout=limit)
        except queue.Empty:
            return None
        if event[0] == "told":
            self._end(drain=True)
            raise Told
        if event[0] == "joined":
            _, rank, link = event
            former = self.links.get(rank)
            self.links[rank] = link
            say(f"{self._name(rank)} has joined")
            if former is None:
                return None
            # Its container was made anew, or its network was away, before we noticed: what it ran is gone.
            former.close()
            return ("lost", rank, former)
        if event[0] == "lost":
            _, rank, link = event
            if self.links.get(rank) is not link:
                return None
            del self.links[rank]
        if event[0] == "said":
            _, rank, (link, kind, value) = event
            # What a former link still had to say is not of what runs now.
            return (kind, rank, value) if self.links.get(rank) is link else None
        return event

    def _name(self, rank: int) -> str:
        return f"rank {rank} ({self.options.names[rank]})"

    def _healthy(self) -> bool:
        if not self.options.health:
            return False
        try:
            with urllib.request.urlopen(self.options.health, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _busy(self) -> bool:
        """By its own counters; False where it shows none."""
        if not self.options.health:
            return False
        try:
            with urllib.request.urlopen(f"{self.options.health.removesuffix('/health')}/metrics", timeout=5) as shown:
                counts = REQUESTS.findall(shown.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            return False
        return any(count != "0.0" for count in counts)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link = Link(listener.accept()[0])
            except OSError:
                # One that is gone already, or too many at once: the next one must be heard all the same.
                time.sleep(0.1)
                continue
            self.strangers.append(link)
            if len(self.strangers) > STRANGERS:
                self.strangers.popleft().close()
            threading.Thread(target=self._hear, args=(link,), daemon=True).start()

    def _hear(self, link: Link) -> None:
        messages = link.messages()
        with link.soon():
            rank, refusal = self._admit(link, messages)
        with contextlib.suppress(ValueError):
            self.strangers.remove(link)
        if refusal:
            link.send(refused=refusal)
            link.close()
            return
        self.inbox.put(("joined", rank, link))
        for message in messages:
            for kind in message.keys() & SAID:
                self.inbox.put(("said", rank, (link, kind, message[kind])))
        self.inbox.put(("lost", rank, link))

    def _admit(self, link: Link, messages: Iterator[dict[str, Any]]) -> tuple[int, str]:
        """(rank, why it is refused: a key of REFUSALS, or ''); tells a rank that is let in that this is rank 0."""
        asked = secrets.token_hex()
        link.send(prove=asked)
        hello = next(messages, {})
        rank, asking = hello.get("rank", 0), str(hello.get("asking"))
        known = isinstance(rank, int) and 0 < rank < len(self.options.names)
        if not known or hello.get("server") != mark():
            return 0, "server"
        if not self.key.proves(hello.get("proof"), "rank", rank, asked, asking):
            return 0, "key"
        link.send(proof=self.key.proof("lead", rank, asked, asking))
        return rank, ""


class Follow:
    """Any other rank: does what rank 0 says, and nothing without it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.key = Key(options.key)
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self.engine = Engine(options, lambda process, code: self.inbox.put({"ended": (process, code)}))

    def run(self) -> int:
        while True:
            link = self._connect()
            threading.Thread(target=self._listen, args=(link,), daemon=True).start()
            final = self._obey(link)
            self.engine.stop()
            link.close()
            if final is not None:
                say(final)
                return 0
            self._pause(2)

    def tell(self) -> None:
        """Docker wants this container to end."""
        self.inbox.put({"told": True})

    def _connect(self) -> Link:
        said, wait = 0.0, 0.1
        while True:
            try:
                return Link(socket.create_connection(self.options.address, timeout=5))
            except OSError as error:
                if time.monotonic() - said > AGAIN:
                    say(f"waiting for rank 0 ({self.options.names[0]}): {error}")
                    said = time.monotonic()
            # Soon at first: both containers start at once, and rank 0 may listen a moment later than this one asks.
            self._pause(wait)
            wait = min(2 * wait, 2)

    def _listen(self, link: Link) -> None:
        messages = link.messages()
        with link.soon():
            refusal = self._join(link, messages)
        if refusal:
            self.inbox.put({"refused": refusal, "link": link})
            return
        for message in messages:
            self.inbox.put({**message, "link": link})
        self.inbox.put({"lost": True, "link": link})

    def _join(self, link: Link, messages: Iterator[dict[str, Any]]) -> str:
        """Prove that this is a rank, and have it proven that there is rank 0; why that failed, else ''."""
        asked, asking = next(messages, {}).get("prove"), secrets.token_hex()
        rank = self.options.rank
        proof = self.key.proof("rank", rank, asked, asking)
        link.send(rank=rank, server=mark(), asking=asking, proof=proof)
        answer = next(messages, {})
        if self.key.proves(answer.get("proof"), "lead", rank, asked, asking):
            return ""
        return REFUSALS.get(str(answer.get("refused")), "nothing that proves it to be rank 0")

    def _obey(self, link: Link) -> str | None:
        """Until the link is lost (None) or rank 0 gives up (its reason)."""
        while True:
            order = self.inbox.get()
            if "told" in order:
                self._leave(link)
                raise Told
            if "ended" in order:
                process, code = order["ended"]
                if process is self.engine.process:
                    link.send(ended=code)
            elif order["link"] is not link:
                continue
            elif "start" in order:
                self.engine.start(clean=bool(order.get("clean")))
                link.send(started=True)
            elif "stop" in order:
                self.engine.stop()
                link.send(stopped=True)
            elif "give_up" in order:
                return str(order["give_up"])
            else:
                if "refused" in order:
                    say(f"rank 0 ({self.options.names[0]}) says: {order['refused']}")
                elif self.engine.process:
                    say(f"rank 0 ({self.options.names[0]}) is lost: stopping")
                return None

    def _leave(self, link: Link) -> None:
        """Once rank 0 needs this rank no more: it may still answer what it has accepted."""
        deadline = time.monotonic() + self.options.drain
        if self.engine.process:
            link.send(leaving=True)
            with contextlib.suppress(queue.Empty):
                while (
                    not {"stop", "lost", "ended"} & self.inbox.get(timeout=max(0.0, deadline - time.monotonic())).keys()
                ):
                    pass
        self.engine.stop()

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if "told" in self.inbox.get(timeout=left):
                    raise Told
            except queue.Empty:
                return


def mark() -> str:
    return os.environ.get("DGX_SPARK_SERVER", "")


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> int:
    words = argparse.ArgumentParser(allow_abbrev=False)
    words.add_argument("--rank", type=int, required=True)
    words.add_argument("--names", type=lambda text: text.split(","), required=True)
    words.add_argument("--address", type=host_and_port)
    words.add_argument("--key")
    words.add_argument("--restarts", type=int, default=3)
    words.add_argument("--pause", type=int, default=5)
    words.add_argument("--health")
    words.add_argument("--ask", type=json.loads)
    words.add_argument("--needs")
    words.add_argument("--weights", default="/nowhere")
    words.add_argument("--alias")
    words.add_argument("--compiled")
    words.add_argument("--drain", type=int, default=0)
    words.add_argument("command", nargs="+")
    options = words.parse_args()
    if options.alias:
        link(options.weights, options.alias)
    adopt_orphans()
    role = Follow(options) if options.rank else Lead(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not from the handler itself: it may have interrupted the queue while it holds its lock.
        signal.signal(number, lambda *_: threading.Thread(target=role.tell).start())
    try:
        return role.run()
    except Told:
        return 143


if __name__ == "__main__":
    sys.exit(main())
