"""A bad line to one Spark's management port: packets that come late, or never.

The kernel's own way (tc netem) is not in every kernel, this workplace's among them. So the port's veth is joined to the
bridge by two TAP devices with this program between them, which hands each frame on after a delay, or drops it. TCP at
both ends is the kernel's, and so are its retransmissions.

`python -m simulator.lossy NEAR FAR LOSS DELAY` carries frames between two TAP devices until it is ended. LOSS: share of
frames that are dropped, each way; DELAY: seconds, each way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.layout import BRIDGE, ROOT, Spark
from simulator.network import ip
from simulator.sparks import wait_for

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
"""Source: linux/if_tun.h."""

LONGEST_FRAME = 65536


def tap(name: str) -> int:
    """A TAP device that is there as long as this is open. The kernel segments and completes what it is given."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


@dataclass
class Carried:
    frames: int = 0
    dropped: int = 0


def carry(near: int, far: int, loss: float, delay: float, carried: Carried) -> None:
    chance = random.Random(0)
    other = {near: far, far: near}
    under_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for descriptor in select.select([near, far], [], [], wait)[0]:
            frame = os.read(descriptor, LONGEST_FRAME)
            carried.frames += 1
            if chance.random() < loss:
                carried.dropped += 1
            else:
                under_way.append((time.monotonic() + delay, other[descriptor], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, descriptor, frame = under_way.popleft()
            with contextlib.suppress(OSError):  # full, or down: lost, as on a line
                os.write(descriptor, frame)


@contextlib.contextmanager
def line(spark: Spark, *, loss: float, delay: float) -> Iterator[Carried]:
    """Meanwhile its management port is joined to the others by such a line. The value holds what that has carried when
    it has ended."""
    port, far_bridge = f"mg-{spark.name}", f"br-far-{spark.index}"
    near, far = f"near-{spark.index}", f"far-{spark.index}"
    argv = [sys.executable, "-m", "simulator.lossy", near, far, str(loss), str(delay)]
    carried = Carried()
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as carrier:
        try:
            wait_for(lambda: far in ip("-br", "link"), f"the device {far}")
            ip("link", "add", far_bridge, "type", "bridge")
            for name, bridge in ((near, BRIDGE), (far, far_bridge), (port, far_bridge)):
                ip("link", "set", name, "master", bridge, "up")
            ip("link", "set", far_bridge, "up")
            yield carried
        finally:
            ip("link", "set", port, "master", BRIDGE)
            ip("link", "del", far_bridge, check=False)
            carrier.terminate()
            carried.frames, carried.dropped = map(int, carrier.communicate()[0].split())


def main() -> None:
    near, far, loss, delay = sys.argv[1:]
    carried = Carried()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        carry(tap(near), tap(far), float(loss), float(delay), carried)
    finally:
        print(carried.frames, carried.dropped)


if __name__ == "__main__":
    main()
