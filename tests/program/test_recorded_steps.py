"""What the program registers is what the Pulumi CLI was seen to make of it (e2e/recorded_steps.yaml)."""

from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.e2e.events import ROUTES
from tests.program.record import run
from tests.program.test_order import LAYOUTS

SEEN = yaml.safe_load((Path(__file__).parents[1] / "e2e/recorded_steps.yaml").read_text())
NOT_MEASURED = {"minRdmaGbps": 0, "minTcpGbps": 0}
"""As of simulated Sparks."""

CHANGES = [(layout, name) for layout in ROUTES for name in layout.changes]


class Step(NamedTuple):
    op: str
    name: str
    why: list[str]

    @classmethod
    def read(cls, line):
        what, _, why = line.partition(": ")
        op, _, name = what.split(" ")
        return cls(op, name, [key for key in why.split(", ") if key])


def registered(tmp_path, monkeypatch, layout, change=None):
    count, config = LAYOUTS[layout.name]
    config = {**config, "fabric": NOT_MEASURED}
    for key, value in (change.config if change else {}).items():
        merge = isinstance(value, dict) and isinstance(config.get(key), dict)
        config[key] = {**config[key], **value} if merge else value
    for path, value in (change.secret if change else {}).items():
        key, _, below = path.partition(".")
        config[key] = {below: value} if below else value
    return run(tmp_path, monkeypatch, count, **config)


def inputs_changed(before, after, name):
    old, new = before.inputs(name), after.inputs(name)
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


@pytest.mark.parametrize("layout", ROUTES, ids=lambda layout: layout.name)
def test_a_first_up_makes_what_the_pulumi_cli_was_seen_to_make(layout, tmp_path, monkeypatch):
    made = registered(tmp_path, monkeypatch, layout)
    here = {f"create {request.type} {name}" for name, request in made.requests.items()}
    seen = SEEN[layout.name]
    stack = {one for one in seen["the first up"] if "pulumi:pulumi:Stack" in one}
    assert {one for one in here if "pulumi:pulumi:Stack" not in one} == {*seen["the first up"]} - stack
    assert len(seen["destroyed"]) == len(seen["the first up"])


@pytest.mark.parametrize(("layout", "name"), CHANGES, ids=[f"{layout.name}: {name}" for layout, name in CHANGES])
def test_an_everyday_change_touches_what_the_pulumi_cli_was_seen_to_touch(layout, name, tmp_path, monkeypatch):
    seen = [Step.read(line) for line in SEEN[layout.name][f"changed: {name}"]]
    before = registered(tmp_path, monkeypatch, layout)
    after = registered(tmp_path, monkeypatch, layout, layout.changes[name])
    assert after.requests.keys() - before.requests.keys() == {step.name for step in seen if step.op == "create"}
    both = [one for one in after.requests if one in before.requests]
    touched = {one: keys for one in both if (keys := inputs_changed(before, after, one))}
    # Here a new container has the id of the old one, so what waits for a new id stays as it is.
    by_itself = {step.name: step.why for step in seen if step.op == "update" or step.why}
    assert by_itself.keys() <= touched.keys() <= {step.name for step in seen}
    assert {one: why for one, why in by_itself.items() if why and why != touched[one]} == {}
