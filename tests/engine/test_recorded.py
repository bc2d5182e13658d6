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


def test_what_went_for_a_replacement_that_never_came_is_known_by_its_id_and_deleted_once_more(tmp_path):
    lab = Lab(tmp_path)
    root = "root = command('root', triggers=['WORD'], opts=Opts(delete_before_replace=True))\n"
    lab.up(root + "command('x', triggers=[root.id])\n")
    failed = lab.up(root.replace("WORD", "other") + "raise pulumi.RunError('and no more')\n")
    assert (failed.code != 0, failed.calls) == (True, ["delete x", "delete root", "create root"])
    [pending] = (one for one in lab.state() if one.get("pendingReplacement"))
    assert pending["id"]

    again = lab.up(root.replace("WORD", "third"))
    assert (again.code, again.calls) == (0, ["delete x", "delete root", "create root"])
    assert lab.up().calls == []


def test_a_preview_shows_what_goes_for_a_replacement_and_does_not_come_again(tmp_path):
    lab = Lab(tmp_path)
    root = "root = command('root', triggers=['WORD'], opts=Opts(delete_before_replace=True))\n"
    lab.up(root + "command('x', triggers=[root.id])\n")
    shown = lab.run("preview", program=root.replace("WORD", "other")).text
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "-- command:local:Command x delete original" in lines
    assert not any("to delete" in line for line in lines)
