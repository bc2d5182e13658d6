"""What `preview --json` says of the scenarios of recorded.yaml.

`python -m tests.engine.record` writes recorded_previews.yaml; only under the Pulumi CLI (SPARK_ENGINE=pulumi): it is
what the hermetic engine is held to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from ops import pulumi
from tests.engine.lab import Lab

FOLDER = Path(__file__).parent
SCENARIOS = yaml.safe_load((FOLDER / "recorded.yaml").read_text())
FILE = FOLDER / "recorded_previews.yaml"
HEADING = """# What the Pulumi CLI (3.260, command 1.2.1, docker 5.2.0) says of the scenarios of
# recorded.yaml, by record.py beside this file.
#
# preview   steps of `preview --json`: diffReasons and replaceReasons in the order of names, and the kinds of its
#           detailedDiff; what is null or empty is left out
# again     steps of another preview, after the update
"""


def name_of(urn: str) -> str:
    """`command:local:Command x`"""
    _, _, kinds, name = urn.split("::")
    return f"{kinds.rsplit('$')[-1]} {name}"


def said(digest: dict[str, Any]) -> dict[str, Any]:
    """Of `preview --json`: step → its reasons, the stack left out."""
    found = {f"{step['op']} {name_of(step['urn'])}": reasons(step) for step in digest["steps"]}
    return {step: why for step, why in sorted(found.items()) if " pulumi:pulumi:Stack " not in step}


def reasons(step: dict[str, Any]) -> dict[str, Any]:
    """Lists in the order of names; of the details their kind."""
    words = {key: sorted(step[key]) for key in ("diffReasons", "replaceReasons") if step.get(key)}
    details = {path: one["kind"] for path, one in sorted((step.get("detailedDiff") or {}).items())}
    return {**words, **({"detailedDiff": details} if details else {})}


def heard(lab: Lab, scenario: dict[str, Any]) -> dict[str, Any]:
    """Of a scenario whose `before` is up."""
    lab.program(scenario["after"] + "\n")
    found = said(lab.preview())
    lab.up()
    return {"preview": found, "again": said(lab.preview())}


def main() -> None:
    if "pulumi" not in pulumi.chosen().argv[0]:
        raise SystemExit("what the hermetic engine says is held to what is recorded, and not the other way round")
    every = {}
    for scenario in (one for one in SCENARIOS if "preview" in one):
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(Path(folder), scenario.get("project", ""))
            up = lab.up(scenario["before"] + "\n")
            assert up.code == 0, up.text
            every[scenario["name"]] = heard(lab, scenario)
    FILE.write_text(HEADING + yaml.safe_dump(every, sort_keys=False, width=118))


if __name__ == "__main__":
    main()
