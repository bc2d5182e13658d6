"""The engine does, step by step, what Pulumi was seen to do (recorded.yaml), and says of it in previews what Pulumi was
heard to say (recorded_previews.yaml); runs on the Pulumi CLI as well."""

import pytest
import yaml

from tests.engine import record
from tests.engine.lab import Lab
from tests.engine.record import SCENARIOS

pytestmark = pytest.mark.usefixtures("warm_starts")

HEARD = yaml.safe_load(record.FILE.read_text())


def operations(digest):
    """Command → what would happen to it, unchanged ones left out."""
    hidden = ("same", "refresh")
    shown = [step for step in digest["steps"] if step["op"] not in hidden and "command:local" in step["urn"]]
    return {step["urn"].rsplit("::", 1)[1]: step["op"] for step in shown}


def unordered(calls, pattern):
    """`calls` with each stretch whose order is free brought into the pattern's order."""
    made, rest = [], list(calls)
    for expected in pattern:
        width = len(expected) if isinstance(expected, list) else 1
        stretch, rest = rest[:width], rest[width:]
        made.append(sorted(stretch) if isinstance(expected, list) else stretch[0] if stretch else None)
    return made + rest


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_steps(scenario, tmp_path):
    lab = Lab(tmp_path, scenario.get("project", ""))
    assert lab.up(scenario["before"] + "\n").code == 0
    lab.program(scenario["after"] + "\n")
    heard = HEARD.get(scenario["name"])
    if "preview" in scenario:
        digest = lab.preview()
        assert operations(digest) == scenario["preview"]
        assert record.said(digest) == heard["preview"]
    run = lab.up()
    assert (run.code != 0) == scenario.get("fails", False), run.text
    expected = [sorted(call) if isinstance(call, list) else call for call in scenario["calls"]]
    assert unordered(run.calls, expected) == expected
    if heard:
        assert record.said(lab.preview()) == heard["again"]


def test_every_kind_of_step_and_of_failure_was_recorded():
    assert {op for scenario in SCENARIOS for op in scenario.get("preview", {}).values()} == {
        "create",
        "update",
        "replace",
        "delete",
    }
    assert any(scenario.get("fails") for scenario in SCENARIOS)
