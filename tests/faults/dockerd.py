"""Docker's daemon of a Spark, which hangs: it is there, takes connections, and answers nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simulator import sparks
from simulator.layout import Spark


def _signal(spark: Spark, name: str) -> None:
    sparks.inside(spark, "sh", "-c", f"kill -{name} $(cat /var/run/docker.pid)")


@contextmanager
def hanging(spark: Spark) -> Iterator[None]:
    _signal(spark, "STOP")
    try:
        yield
    finally:
        _signal(spark, "CONT")
