"""Whatever Pulumi runs here does what the Pulumi CLI was seen to do (recorded_steps.yaml), at every event."""

from __future__ import annotations

import pytest
import yaml

from tests.e2e import step_lists
from tests.e2e.conftest import step

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SEEN = yaml.safe_load(step_lists.FILE.read_text())


@pytest.mark.parametrize("layout", step_lists.ROUTES, ids=lambda layout: layout.name)
def test_every_event_takes_the_steps_that_the_pulumi_cli_was_seen_to_take(layout, simulated):
    seen, differing = SEEN[layout.name], {}
    with step_lists.recorded(layout, simulated[:2]) as stack:
        for event, steps in stack.events():
            step(event)
            here, there = set(steps), set(seen.pop(event))
            if here != there:
                differing[event] = {"only here": sorted(here - there), "only there": sorted(there - here)}
    assert not differing, yaml.safe_dump(differing, width=200)
    assert not seen, "events that were recorded and are no more"
