"""torch's rendezvous between ranks that have no Ray: rank 0 listens, the others join, every step takes all."""

import contextlib
import socket
import time

from standin import gpu

QUEUE = 64
"""Bytes of the message that names a queue's place."""

STEP = 30
"""Seconds for one step of all ranks."""


class DeadRank(RuntimeError):
    pass


class Head:
    """Rank 0's side."""

    def __init__(self, world: int, address: str, port: int, log, limit: float = 1800) -> None:
        self.peers: dict[int, socket.socket] = {}
        if world == 1:
            return
        listener = socket.create_server((address, port), reuse_port=False)
        listener.settimeout(5)
        began = time.monotonic()
        while len(self.peers) < world - 1:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = sorted(set(range(1, world)) - set(self.peers))
                waited = time.monotonic() - began
                log(f"waiting for ranks {missing} to join at {address}:{port} ({waited:.0f} s)")
                if waited > limit:
                    raise DeadRank(f"ranks {missing} have not joined within {limit:.0f} s") from None
                continue
            self.peers[connection.recv(1)[0]] = connection
        listener.close()
        self.ask(b"g")

    def ask(self, word: bytes, limit: float | None = 3600) -> None:
        """Every rank must answer. Raises DeadRank."""
        for peer in self.peers.values():
            # A dead one's silence is noticed below.
            with contextlib.suppress(OSError):
                peer.sendall(word)
        for rank, peer in self.peers.items():
            peer.settimeout(limit)
            try:
                answer = peer.recv(1)
            except OSError:
                answer = b""
            if answer != b"k":
                raise DeadRank(f"rank {rank} has died")

    def open_queue(self, address: str) -> None:
        """A message queue beside NCCL, at the address that this rank believes to be its own: whoever can't reach it
        keeps all waiting without end (SGLang, shm_broadcast.py)."""
        if not self.peers:
            return
        with socket.create_server((address, 0)) as listener:
            place = f"{address}:{listener.getsockname()[1]}".ljust(QUEUE).encode()
            self.ask(b"q" + place, limit=None)

    def step(self) -> None:
        gpu.work()
        self.ask(b"s", STEP)


def _join_queue(place: str) -> None:
    host, _, port = place.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            time.sleep(1)


def follow(rank: int, address: str, port: int, load, log, limit: float = 1800) -> None:
    """Another rank's life: join, load, answer steps; never returns. A head that dies goes unnoticed (measured)."""
    deadline = time.monotonic() + limit
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=5)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise DeadRank(f"the head at {address}:{port} has not been reached within {limit:.0f} s") from None
            time.sleep(1)
    connection.settimeout(None)
    connection.sendall(bytes([rank]))
    while word := connection.recv(1):
        if word == b"l":
            load()
        elif word == b"s":
            gpu.work()
        elif word == b"q":
            _join_queue(connection.recv(QUEUE).decode().strip())
        connection.sendall(b"k")
    log("the connection to rank 0 is gone; staying")
    while True:
        time.sleep(60)
