"""One of a pair without power, and with it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simulator import network, sparks
from simulator.hub import MEBIBYTE, RATE
from simulator.layout import RUN, Spark
from tests.e2e.conftest import Stack

LARGE = "simulated/large"
"""32 MiB of weights, enough to be interrupted."""

SIZE = 32 << 20
FOLDER = "~/.cache/huggingface/hub/models--simulated--large"


@contextmanager
def without_power(spark: Spark) -> Iterator[None]:
    """Nobody is told that it goes."""
    sparks.power_off(spark)
    try:
        yield
    finally:
        sparks.power_on(spark)
        sparks.wait_until_up(sparks.existing())


def to_come_anew(pair: Stack) -> None:
    """The pair shall serve a model whose weights, of former trials, are gone from both."""
    pair.configure(model=LARGE, serving={"executor": "mp"})
    for spark in pair.nodes:
        sparks.on(spark, f"rm -rf {FOLDER}")


@contextmanager
def slow_hub() -> Iterator[None]:
    rate = RUN / "hub" / RATE
    rate.write_text(str(6 * MEBIBYTE))
    try:
        yield
    finally:
        rate.unlink()


@contextmanager
def slow_fabric(head: Spark, mbit: int) -> Iterator[None]:
    """Out of the head."""
    network.throttle(head, mbit)
    try:
        yield
    finally:
        network.throttle(head, None)


def wait_for_weights(spark: Spark, share: float) -> None:
    """Until this share of the weights has come."""
    sizes = f"stat -Lc %b {FOLDER}/blobs/* 2>/dev/null | sort -n | tail -1"
    sparks.wait_for(lambda: int(sparks.on(spark, sizes, check=False) or 0) * 512 > SIZE * share, "weights", limit=120)
