"""README's way to a first cluster, line by line, in a copy of the program as a clone of it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import requests
import yaml

from ops import demo, pulumi
from simulator.layout import KEY, ROOT, USER
from tests.e2e.conftest import step
from tests.install.command_lines import told

pytestmark = [pytest.mark.e2e, pytest.mark.long]

TEXT = (ROOT / "README.md").read_text()
LINES = told(TEXT[TEXT.index("    ./spark setup-ssh") : TEXT.index("Names by mDNS")])

THEIRS = "192.168.1.11,192.168.1.12"
"""The addresses of Sparks there."""

MORE = {
    ("./spark", "init"): ["--key", str(KEY), "--yes"],
    ("./spark", "setup-network"): ["--yes"],
    ("pulumi", "up"): ["--yes"],
}
"""What would be answered or chosen at a terminal."""

DONE = (["./spark", "setup-ssh"], ["pulumi", "install"])
"""The Sparks have the key (and ssh would write into this account's known_hosts), .venv has the packages."""


@pytest.fixture
def clone(tmp_path):
    """What is in git, but for what only tests and the simulator need."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if not name.startswith(("tests/", "docs/")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def on_simulated_sparks(file, nodes):
    """What differs there from real ones."""
    document = yaml.safe_load(file.read_text())
    config = demo.stack_config(nodes[:2])
    document["config"] |= {f"dgx-spark:{key}": config[f"dgx-spark:{key}"] for key in ("fabric", "weights")}
    file.write_text(yaml.safe_dump(document))


def test_its_lines_lead_to_an_answer(simulated, clone):
    environment = {**pulumi.environment(clone / "state"), "PYTHONPATH": str(clone)}
    file = clone / "Pulumi.head-worker.yaml"
    hosts = ",".join(spark.address for spark in simulated[:2])
    tools = {"./spark": [sys.executable, "-m", "ops"], "pulumi": list(pulumi.chosen().argv)}

    def typed(*words):
        step(" ".join(words))
        argv = [hosts if word == THEIRS else USER if word == "nvidia" else word for word in words[1:]]
        argv = [*tools[words[0]], *argv, *MORE.get(words[:2], [])]
        done = subprocess.run(
            argv, env=environment, cwd=clone, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        for words in LINES:
            said = "" if words[:2] in DONE else typed(*words)
            if words[:2] == ["./spark", "init"]:
                on_simulated_sparks(file, simulated)
        assert "/v1/chat/completions" in said
        outputs = json.loads(typed("pulumi", "stack", "output", "--json"))
        asked = {"model": outputs["model"], "prompt": "The capital of France is", "max_tokens": 8}
        answer = requests.post(f"{outputs['api_base']}/completions", json=asked, timeout=60)
        assert answer.json()["choices"]
    finally:
        typed("pulumi", "destroy", "--yes")
