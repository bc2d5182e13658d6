"""How far a long step is: bytes, rate and time left, in few lines."""

from __future__ import annotations

import threading
import time

from .job import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


def pause(elapsed: float) -> int:
    """Seconds until the next line: what takes an hour needs fewer than what takes a minute."""
    return 10 if elapsed < 60 else 30 if elapsed < 600 else 60


def amount(size: float) -> str:
    """Bytes, to a person."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """To a person: `40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def line(done: float, total: float, rate: float) -> str:
    """The most important first: of what is said of a step, a terminal of 120 columns shows some 40 characters.

    done, total   bytes; total 0: nobody knows
    rate          bytes/s of late
    """
    speed = f"{amount(rate)}/s"
    if total <= 0:
        return f"{amount(done)}, {speed}"
    left = f"{duration(max(total - done, 0) / rate)} left, {speed}" if rate > 0 else "nothing of late"
    return f"{100 * min(done / total, 1):.0f} %, {left}, {amount(done)} of {amount(total)}"


class Count:
    """Bytes that several threads have done."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.value += size


class Reports:
    """Says a line on standard error now and then, while something lasts."""

    def __init__(self, line: Callable[[], str]) -> None:
        """line: asked for each time; '' says nothing."""
        self._line = line
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> Reports:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _report(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(pause(time.monotonic() - begun)):
            if said := self._line():
                say(said)


class Progress(Reports):
    """Says how far something is that is made of bytes."""

    def __init__(self, doing: str, what: str, total: Callable[[], int], done: Callable[[], int]) -> None:
        """doing, what: begin and end each line; total, done: bytes, asked for each line."""
        super().__init__(self._how_far)
        self._doing, self._what, self._total, self._done = doing, what, total, done
        self._last, self._before = time.monotonic(), done()

    def _how_far(self) -> str:
        now, done = time.monotonic(), self._done()
        how_far = line(done, self._total(), (done - self._before) / (now - self._last))
        self._last, self._before = now, done
        return f"{self._doing} {how_far}: {self._what}"
