"""A stack that a former version brought up: what this version's next `up` does to it, by what each registered.

former/NAME.json holds the registrations of the version of that commit, of the stacks in it (`sparks`, `config`), less
connections; a long text is its digest. The engine's own rules say what a difference means.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from simulator.engine.providers import Old
from simulator.engine.registrations import parsed
from simulator.engine.registry import implementation
from tests.program.record import Registered, run

FORMER = json.loads((Path(__file__).parent / "former/295fc28.json").read_text())
LONG = 120
"""Characters."""


def shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > LONG:
        return hashlib.sha256(value.encode()).hexdigest()
    return value


def operation(made: Registered, name: str, before: dict[str, Any]) -> str:
    request, inputs = made.requests[name], shortened(made.inputs(name))
    ignored = {path.split(".")[0].split("[")[0] for path in request.ignoreChanges} | {"connection"}
    wanted = {key: value for key, value in inputs.items() if key not in ignored}
    known = {key: value for key, value in before["inputs"].items() if key not in ignored}
    diff = implementation(request.type).diff(Old("id", known, known), wanted)
    diff = diff.forced([parsed(path) for path in request.replaceOnChanges])
    return "replace" if diff.replaces else "update" if diff.changed else "same"


def upgraded(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Operation → names, of an `up` of this version; unchanged ones left out."""
    former = FORMER[layout]
    made = run(tmp_path, monkeypatch, former["sparks"], **former["config"])
    custom = {name for name, request in made.requests.items() if request.custom and ":providers:" not in request.type}
    known = former["resources"]
    found: dict[str, set[str]] = {"create": custom - known.keys(), "delete": known.keys() - custom}
    for name in custom & known.keys():
        found.setdefault(operation(made, name, known[name]), set()).add(name)
    return {op: names for op, names in found.items() if names and op != "same"}


RUNS = "docker:index/container", "docker:index/service", "docker:index/secret"
"""Beginnings of types: what runs, and what it is given. A new version may make it anew, and says so in CHANGELOG.md."""

CHEAP = {"cluster-endpoint-ready", "cluster-server-key", "cluster-swarm-members", "cluster-ray-formed"}
"""Commands that go with what runs."""


@pytest.mark.parametrize("layout", FORMER)
def test_an_upgrade_makes_nothing_anew_but_what_runs(layout, tmp_path, monkeypatch):
    found, known = upgraded(layout, tmp_path, monkeypatch), FORMER[layout]["resources"]
    gone = found.get("replace", set()) | found.get("delete", set())
    # Weights, images, volumes, keys and the Sparks themselves stay.
    assert {name for name in gone if not known[name]["type"].startswith(RUNS)} <= CHEAP
    assert {f"spark-{number}-lease" for number in range(1, FORMER[layout]["sparks"] + 1)} <= found["update"]
