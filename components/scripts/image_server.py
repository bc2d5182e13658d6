"""What sshd does for a key that copies an image: it sends that one, and does nothing else, whatever is asked.

While this Spark receives the image itself, what comes is passed on (image_copy.py); otherwise `docker save` sends it.
Named by copy_access.py in ~/.ssh/authorized_keys.

argument  the image's id on the head
stdin     a number in a line: how many of its lowest layers need not be sent
stdout    what `docker save` makes of it, without these
stderr    `size BYTES` first, as Docker counts it, where the image is here and sent whole
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time

from shared.files import read
from shared.images import layers_of
from shared.upstream import GRACE, IDLE, IMAGE, LOOK, RECEIVING, SOCKET, stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, NoReturn

STACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The stack's directory, in which this is laid."""

BLOCK = 1 << 20
PIECE = 1 << 16
"""Bytes that tarfile reads and writes at once: it copies the rest of what it has read at each. Of its own choice it is
five times as slow."""


def size_of(image: str) -> str:
    """Bytes; '' where it is not here."""
    done = subprocess.run(
        ["docker", "image", "inspect", "--format={{.Size}}", image], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def here(image: str) -> str:
    """What Docker calls it on this Spark, which may keep images otherwise than the head."""
    record = json.loads(read(os.path.join(STACK, "image-copy.json")) or "{}")
    return str(record["checks"]["images"][0]) if record.get("of") == image else image


def asked() -> int:
    """Layers that need not be sent. Whoever asks knows it late: others may be asking there."""
    line = sys.stdin.readline().strip()
    return int(line) if line.isdecimal() else 0


def save(image: str, size: str, without: int) -> NoReturn:
    """Send it from Docker; `size`: bytes of all of it."""
    layers = layers_of(image) if without else []
    needed = set(layers[without:])
    # Older Docker than 25 and containerd's image store name layers otherwise, and everything is sent.
    left_out = {f"blobs/sha256/{layer.partition(':')[2]}" for layer in layers[:without] if layer not in needed}
    if not left_out:
        print("size", size, file=sys.stderr, flush=True)
        os.execvp("docker", ["docker", "save", image])
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout
        # Whoever takes no more, or has less to give, says why itself.
        with contextlib.suppress(BrokenPipeError, tarfile.ReadError):
            send(saving.stdout, left_out)
            sys.exit(saving.wait())
    sys.exit(1)


def send(archive: IO[bytes], left_out: set) -> None:
    """The archive without members of these names."""
    with (
        tarfile.open(fileobj=archive, mode="r|", bufsize=PIECE) as whole,
        tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=PIECE) as part,
    ):
        part.copybufsize = PIECE  # type: ignore[attr-defined]  # of every tarfile since Python 3.7
        for member in whole:
            if member.name not in left_out:
                part.addfile(member, whole.extractfile(member) if member.isreg() else None)
    sys.stdout.buffer.flush()


def passed_on() -> bool:
    """Was there somebody to pass the image on, from its beginning?"""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        # Its path may be longer than that of a socket can be.
        os.chdir(STACK)
        client.connect(SOCKET)
        client.sendall(f"{asked()}\n".encode())
        with client.makefile("rb") as stream:
            first = stream.read1(BLOCK)
            sys.stdout.buffer.write(first)
            shutil.copyfileobj(stream, sys.stdout.buffer, BLOCK)
            sys.stdout.buffer.flush()
            return bool(first)
    return False


def main() -> None:
    deadline = time.monotonic() + GRACE
    while True:
        now = stage(STACK, IMAGE)
        if now == RECEIVING and passed_on():
            return
        image = here(sys.argv[1])
        if now == IDLE and (size := size_of(image)):
            save(image, size, asked())
        if now == IDLE and time.monotonic() > deadline:
            sys.exit(f"the image {image} is not here, and nobody copies it to here")
        time.sleep(LOOK)


main()
