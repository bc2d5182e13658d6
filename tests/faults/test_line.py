"""A bad line to the Sparks: packets that come late, or never."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from simulator import lossy
from tests.e2e.conftest import Stack
from tests.e2e.steps import step
from tests.faults.trial import fault

LOSS, DELAY = 0.05, 0.15
"""Each way: 5 % of the packets, and 300 ms for one there and back."""


@contextlib.contextmanager
def bad_lines(stack: Stack) -> Iterator[None]:
    """To all its Sparks, meanwhile; they are as bad as is said."""
    with contextlib.ExitStack() as lines:
        all_carried = [lines.enter_context(lossy.line(spark, loss=LOSS, delay=DELAY)) for spark in stack.nodes]
        began = time.monotonic()
        socket.create_connection((stack.nodes[0].address, 22)).close()
        assert time.monotonic() - began >= 2 * DELAY
        yield
    for carried in all_carried:
        print(carried)
        assert carried.frames > 300
        assert LOSS / 2 < carried.dropped / carried.frames < LOSS * 2


@fault("5 % packet loss and 300 ms there and back on SSH to each Spark, in `up`, a preview and `destroy`", trials=3)
def test_lossy_and_slow(pair, trial):
    step("weights in place")
    pair.up()
    pair.destroy()
    trial.among(pair.nodes)

    def up() -> None:
        with bad_lines(pair):
            pair.up()
            assert pair.is_clean()

    def destroy() -> None:
        with bad_lines(pair):
            pair.destroy()

    trial.ends_right(pair, up)
    trial.ends_gone(pair, destroy)
