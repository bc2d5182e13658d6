"""What sshd does for a key that copies an image: it sends that one, and does nothing else, whatever is asked.

While this Spark receives the image itself, what comes is passed on (image_copy.py); otherwise `docker save` sends it.
Named by copy_access.py in ~/.ssh/authorized_keys.

argument  the image's id on the head
stdout    what `docker save` makes of it
stderr    `size BYTES` first, as Docker counts it, where the image is here
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from shared.files import read
from shared.upstream import GRACE, IDLE, IMAGE, LOOK, RECEIVING, SOCKET, stage

STACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The stack's directory, in which this is laid."""

BLOCK = 1 << 20


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


def passed_on() -> bool:
    """Was there somebody to pass the image on, from its beginning?"""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        # Its path may be longer than that of a socket can be.
        os.chdir(STACK)
        client.connect(SOCKET)
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
            print("size", size, file=sys.stderr, flush=True)
            os.execvp("docker", ["docker", "save", image])
        if now == IDLE and time.monotonic() > deadline:
            sys.exit(f"the image {image} is not here, and nobody copies it to here")
        time.sleep(LOOK)


main()
