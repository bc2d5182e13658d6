"""A file system of its own under one of a Spark's folders, which is full when a test wants it to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simulator import sparks
from simulator.layout import USER, Spark

ROOM = "6g"
"""More than a preview asks for."""


class Disk:
    def __init__(self, spark: Spark, path: str) -> None:
        self.spark, self.path = spark, path

    def shrink(self, size: str) -> None:
        """From now on there is no more room than this."""
        sparks.inside(self.spark, "mount", "-o", f"remount,size={size}", self.path)

    def free(self) -> None:
        """Somebody has tidied up."""
        self.shrink(ROOM)

    def fill(self) -> None:
        """To the last byte."""
        sparks.inside(self.spark, "dd", "if=/dev/zero", f"of={self.path}/of-somebody", "bs=4k", check=False)

    def empty(self) -> None:
        sparks.inside(self.spark, "rm", f"{self.path}/of-somebody")


@contextmanager
def disk(spark: Spark, folder: str, *, size: str = ROOM) -> Iterator[Disk]:
    """`folder`: of the login user's, below his home; it is there and empty."""
    path = f"/home/{USER}/{folder}"
    sparks.on(spark, f"mkdir -p {path}")
    owner = sparks.on(spark, "echo uid=$(id -u),gid=$(id -g)").strip()
    sparks.inside(spark, "mount", "-t", "tmpfs", "-o", f"size={size},mode=755,{owner}", "small", path)
    try:
        yield Disk(spark, path)
    finally:
        sparks.inside(spark, "umount", "--lazy", path)


@contextmanager
def docker_disk(spark: Spark, size: str) -> Iterator[Disk]:
    """Docker begins with nothing, on a disk of this size; afterwards it has what it had."""
    _docker(spark, f"mount -t tmpfs -o size={size} small /var/lib/docker")
    try:
        yield Disk(spark, "/var/lib/docker")
    finally:
        _docker(spark, "umount --lazy /var/lib/docker")


def _docker(spark: Spark, change: str) -> None:
    """What is changed while Docker does not run."""
    stop = "pid=$(cat /var/run/docker.pid); kill $pid; while [ -e /proc/$pid ]; do sleep 0.1; done"
    sparks.inside(spark, "sh", "-c", f"{stop}; {change}; systemctl restart docker")
