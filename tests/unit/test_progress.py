"""What a long step says of itself: how much, how fast, how long still; and not too often."""

from __future__ import annotations

import pytest

from components.scripts.shared.progress import duration, line, pause


@pytest.mark.parametrize(
    ("done", "total", "rate", "said"),
    [
        (12.34e9, 61e9, 812e6, "20 %, 60 s left, 812.0 MB/s, 12.3 GB of 61.0 GB"),
        (0, 61e9, 100e6, "0 %, 10 min left, 100.0 MB/s, 0 kB of 61.0 GB"),
        (1e9, 1.6e12, 100e6, "0 %, 4 h 26 min left, 100.0 MB/s, 1.0 GB of 1600.0 GB"),
        (5e6, 10e6, 0, "50 %, nothing of late, 5.0 MB of 10.0 MB"),
        # A download writes more than the model while parts of earlier tries are there.
        (11e9, 10e9, 1e9, "100 %, 0 s left, 1.0 GB/s, 11.0 GB of 10.0 GB"),
        # Nobody knows how much it is.
        (3.2e9, 0, 500e3, "3.2 GB, 500 kB/s"),
    ],
)
def test_a_line_says_how_much_how_fast_and_how_long_still(done, total, rate, said):
    assert line(done, total, rate) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (3600, "1 h 00 min")]
)
def test_time_is_told_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_a_step_of_an_hour_says_less_than_a_hundred_lines_and_one_of_a_few_seconds_none():
    elapsed, lines = 0, 0
    while (elapsed := elapsed + pause(elapsed)) <= 3600:
        lines += 1
    assert lines < 100
    assert pause(0) >= 10
