"""What Pulumi does at each everyday change, at each drift, and at the end.

`python -m tests.e2e.step_lists [LAYOUT…]` writes recorded_steps.yaml; only under the Pulumi CLI (SPARK_ENGINE=pulumi),
with simulated Sparks up: it is what the hermetic engine is held to.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ops import pulumi
from simulator import sparks
from simulator.layout import Spark
from tests.e2e.conftest import Stack
from tests.e2e.events import ROUTES, Change, Layout
from tests.program.test_order import LAYOUTS

FILE = Path(__file__).with_name("recorded_steps.yaml")
HEADING = """# Steps under the Pulumi CLI (3.260, command 1.2.1, docker 5.2.0) on simulated Sparks, by step_lists.py
# beside this file; those that change nothing left out. After a colon: the CLI's replaceReasons or diffReasons; without
# one, another resource's new id, or a component.
"""

CHANGED = {"create", "update", "replace", "delete"}
DELETED = re.compile(r"^ *-+ +(\S+:\S+) +(\S+) +delet", re.MULTILINE)
Steps = list[str]


def steps_of(text: str) -> Steps:
    """Of `preview --json`."""
    found = []
    for step in json.loads(text)["steps"]:
        if step["op"] in CHANGED:
            kind, name = step["urn"].split("::")[2].rsplit("$")[-1], step["urn"].rsplit("::", 1)[1]
            why = step.get("replaceReasons") or step.get("diffReasons") or ()
            found.append(f"{step['op']} {kind} {name}{': ' if why else ''}{', '.join(sorted(why))}")
    return sorted(found)


class Recorded:
    """One stack through all that happens to it."""

    def __init__(self, folder: Path, layout: Layout, nodes: list[Spark]) -> None:
        self.layout, self.nodes = layout, nodes
        self.config: dict[str, Any] = LAYOUTS[layout.name][1]
        self.stack = Stack(folder, "recorded", nodes)
        self._configure(Change())

    def _configure(self, change: Change) -> None:
        merged = {**self.config, **change.config}
        if "serving" in self.config and "serving" in change.config:
            merged["serving"] = {**self.config["serving"], **change.config["serving"]}
        self.stack.configure(**merged)
        for key, value in change.secret.items():
            self.stack("config", "set", "--secret", "--path", key, value, "--stack", self.stack.name)

    def _preview(self) -> Steps:
        return steps_of(self.stack("preview", "--json", "--stack", self.stack.name).text)

    def events(self) -> Iterator[tuple[str, Steps]]:
        """What happens → the steps that follow."""
        yield "the first up", self._preview()
        self.stack.up()
        try:
            for name, change in self.layout.changes.items():
                self._configure(change)
                yield f"changed: {name}", self._preview()
            self._configure(Change())
            for name, command in self.layout.drifts.items():
                on_head, head, rest = command.partition("HEAD: ")
                sparks.on(self.nodes[0] if head else self.nodes[-1], rest if head else on_head)
                yield f"drifted: {name}", self._preview()
                self.stack.up()
        finally:
            text = self.stack("destroy", "--yes", "--stack", self.stack.name).text
        gone = {f"delete {kind} {name}" for kind, name in DELETED.findall(text)}
        yield "destroyed", sorted(gone)


@contextmanager
def recorded(layout: Layout, nodes: list[Spark]) -> Iterator[Recorded]:
    with tempfile.TemporaryDirectory() as folder:
        yield Recorded(Path(folder), layout, nodes)


def main(names: list[str]) -> None:
    """Of these layouts; all without any."""
    if "pulumi" not in pulumi.chosen().argv[0]:
        raise SystemExit("what the hermetic engine does is held to what is recorded, and not the other way round")
    for layout in ROUTES:
        if names and layout.name not in names:
            continue
        found = {}
        with recorded(layout, sparks.existing()[:2]) as made:
            for event, steps in made.events():
                print(f"{layout.name}: {event}: {len(steps)} steps", flush=True)
                found[event] = steps
        every = yaml.safe_load(FILE.read_text()) if FILE.exists() else {}
        every[layout.name] = found
        FILE.write_text(HEADING + yaml.safe_dump(every, sort_keys=False, width=200))


if __name__ == "__main__":
    main(sys.argv[1:])
