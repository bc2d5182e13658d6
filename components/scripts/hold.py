"""One `up` of a stack at a time on this Spark: held for as long as somebody reads what this prints. Leaves nothing.

stdin   JSON: stack, who (shown to whoever comes meanwhile)
stdout  a line `held` when it is, then an empty line now and then
exit    1 where another one is under way, with its `who`
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import socket
import sys
import time

from shared.job import job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Hold

PATIENCE = 6
"""Seconds for one that has just ended to be gone here as well."""

BEAT = 2
"""Seconds between two lines: by the next one after its program was killed, ssh there has nobody to write to."""


def address(stack: str) -> str:
    """Of a socket without a file, which only one can listen at and which ends with its process. Source: unix(7)."""
    # Such a name has 107 bytes at most, a stack's may have more.
    return f"\0dgx-spark:{hashlib.sha256(stack.encode()).hexdigest()}"


def take(stack: str) -> socket.socket | None:
    """None: another one has it."""
    server = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.bind(address(stack))
            server.listen()
            return server
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() > deadline:
                return None
            time.sleep(0.2)


def holder(stack: str) -> str:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(address(stack))
        return client.recv(1000).decode()
    return "somebody"


def keep(server: socket.socket, who: str) -> None:
    """Until nobody reads any more; says who it is to whoever asks.

    A machine that is gone without a word (an empty battery) reads for this Spark until TCP gives it up, a quarter of
    an hour (tcp_retries2 of ip-sysctl): so what to end is named.
    """
    poll = select.poll()
    poll.register(server, select.POLLIN)
    # Without being asked for: that the other end of the pipe is closed.
    poll.register(sys.stdout, 0)
    while True:
        ready = dict(poll.poll(BEAT * 1000))
        if sys.stdout.fileno() in ready:
            return
        if server.fileno() in ready:
            with contextlib.suppress(OSError), server.accept()[0] as client:
                client.sendall(f"{who} (here by process {os.getpid()})".encode())
        print(flush=True)


def main() -> None:
    inputs: Hold = job()[1]
    server = take(inputs["stack"])
    if server is None:
        sys.exit(f"another `up` of this stack is under way: {holder(inputs['stack'])}")
    print("held", flush=True)
    with contextlib.suppress(BrokenPipeError):
        keep(server, inputs["who"])


main()
