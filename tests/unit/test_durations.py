"""A Swarm service's durations, which are read back in the provider's own notation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.resources.service import duration
from simulator.engine.providers.swarm_types import seconds, short

GO = {0: "0s", 30: "30s", 60: "1m", 90: "1m30s", 3600: "1h", 3601: "1h0m1s", 3660: "1h1m", 3661: "1h1m1s"}
"""What shortDur of the provider makes of some."""


@pytest.mark.parametrize("whole", GO)
def test_a_duration_is_written_as_the_provider_reads_it_back(whole):
    assert duration(whole) == short(whole * 10**9) == GO[whole]


@given(st.integers(0, 10**6))
def test_whatever_it_is_it_is_read_back_as_it_was_written(whole):
    assert short(int(seconds(duration(whole)) * 10**9)) == duration(whole)
    assert seconds(duration(whole)) == whole
