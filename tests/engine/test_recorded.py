"""The engine does, step by step, what Pulumi was seen to do (recorded.yaml); runs on the Pulumi CLI as well."""

from pathlib import Path

import pytest
import yaml

from tests.engine.lab import Lab

pytestmark = pytest.mark.usefixtures("warm_starts")

SCENARIOS = yaml.safe_load((Path(__file__).parent / "recorded.yaml").read_text())


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
    lab = Lab(tmp_path)
    assert lab.up(scenario["before"] + "\n").code == 0
    lab.program(scenario["after"] + "\n")
    if "preview" in scenario:
        assert lab.preview() == scenario["preview"]
    run = lab.up()
    assert (run.code != 0) == scenario.get("fails", False), run.text
    expected = [sorted(call) if isinstance(call, list) else call for call in scenario["calls"]]
    assert unordered(run.calls, expected) == expected


def test_every_kind_of_step_and_of_failure_was_recorded():
    assert {op for scenario in SCENARIOS for op in scenario.get("preview", {}).values()} == {
        "create",
        "update",
        "replace",
        "delete",
    }
    assert any(scenario.get("fails") for scenario in SCENARIOS)
