"""Which Pulumi `./spark` runs, and how it comes by the CLI."""

import json
import os
import signal
import subprocess
import sys

import pytest
import requests
from pulumi.automation import PulumiCommand

from ops import __main__ as spark
from ops import project, pulumi


@pytest.fixture(autouse=True)
def no_cli(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARK_ENGINE", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(pulumi, "FETCHED", tmp_path / "venv" / "pulumi")


@pytest.fixture
def a_cli(no_cli):
    file = pulumi.FETCHED / "bin" / "pulumi"
    file.parent.mkdir(parents=True)
    file.write_text("#!/bin/sh\necho the CLI: $*\n")
    file.chmod(0o755)


def backend(folder, version):
    """A backend with a stack `demo`, made by the Pulumi of this version; its environment."""
    state = folder / ".pulumi" / "stacks" / "dgx-spark" / "demo.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"checkpoint": {"latest": {"manifest": {"version": version}}}}))
    return {"PULUMI_BACKEND_URL": f"file://{folder}"}


def reachable(monkeypatch, error=None):
    def head(url, timeout):
        assert url.startswith("https://")
        if error:
            raise error

    monkeypatch.setattr(requests, "head", head)


def test_without_the_cli_it_is_the_hermetic_engine():
    assert pulumi.chosen().argv[-1] == "simulator.engine"


def test_a_fetched_cli_is_used_and_finds_its_plugins(a_cli):
    assert pulumi.output(["version"], {"PATH": "/usr/bin:/bin"}) == "the CLI: version"
    assert pulumi.with_plugins({"PATH": "/bin"})["PATH"] == f"/bin:{pulumi.FETCHED}/bin"


def test_a_stack_goes_on_with_the_engine_that_made_it(a_cli, tmp_path, monkeypatch):
    assert pulumi.chosen(backend(tmp_path / "cli", "v3.260.0")).name == "the Pulumi CLI in .venv"
    hermetic = backend(tmp_path / "hermetic", "hermetic")
    assert "hermetic" in pulumi.chosen(hermetic).name
    monkeypatch.setenv("SPARK_ENGINE", "pulumi")
    with pytest.raises(pulumi.CommandError, match=r"demo was brought up by .* hermetic engine.*demo --down"):
        pulumi.chosen(hermetic)


def test_the_cli_is_fetched_into_the_virtual_environment_and_it_is_said(monkeypatch):
    def install(root):
        asked.append(root)

    asked, said = [], []
    reachable(monkeypatch)
    monkeypatch.setattr(PulumiCommand, "install", install)
    assert pulumi.fetch(said.append)
    assert asked == [str(pulumi.FETCHED)]
    assert "fetching the Pulumi CLI 3." in said[0]


def test_where_the_network_does_not_allow_it_that_is_said_and_nothing_breaks(monkeypatch):
    said = []
    reachable(monkeypatch, requests.ConnectTimeout())
    assert not pulumi.fetch(said.append)
    assert said == ["the Pulumi CLI is not here, and https://get.pulumi.com can't be reached (ConnectTimeout)"]


def test_a_download_that_fails_is_said(monkeypatch):
    def install(root):
        raise subprocess.CalledProcessError(1, "install.sh")

    said = []
    reachable(monkeypatch)
    monkeypatch.setattr(PulumiCommand, "install", install)
    assert not pulumi.fetch(said.append)
    assert "could not be fetched" in said[1]


def test_nothing_is_fetched_where_the_engine_is_decided_or_the_cli_is_there(monkeypatch):
    reachable(monkeypatch, AssertionError("asked the network"))
    monkeypatch.setenv("SPARK_ENGINE", "hermetic")
    assert not pulumi.fetch(print)


def test_a_cli_that_is_there_is_taken(a_cli, monkeypatch):
    reachable(monkeypatch, AssertionError("asked the network"))
    assert pulumi.fetch(print)


@pytest.mark.parametrize("words", [("up", "--stack", "demo"), ("up", "-s", "demo", "--yes"), ("up", "--stack=demo")])
def test_the_stack_is_read_from_pulumis_own_words(words):
    assert project.named(words) == "demo"


RUNS_PULUMI = [
    [*words, "--stack", "head-worker"]
    for words in (
        ["up"], ["destroy", "--yes"], ["switch", "gpt-oss-20b", "--yes"], ["rollback", "--yes"], ["adopt", "--yes"],
        ["policy"], ["status"],
    )
]  # fmt: skip


@pytest.mark.parametrize("words", RUNS_PULUMI, ids=lambda words: words[0])
def test_real_sparks_are_not_given_to_the_hermetic_engine_unasked(words, monkeypatch, capsys):
    reachable(monkeypatch, requests.ConnectionError())
    monkeypatch.setattr(sys, "argv", ["spark", *words])
    with pytest.raises(SystemExit):
        spark.main()
    said = capsys.readouterr().err
    assert "spark: the Pulumi CLI is not here, and https://get.pulumi.com can't be reached" in said
    assert "spark: real Sparks are for the Pulumi CLI" in said


def test_the_demonstration_and_who_asks_for_it_get_the_hermetic_engine(monkeypatch):
    reachable(monkeypatch, AssertionError("asked the network"))
    # Its own makes a folder for the state.
    monkeypatch.setattr(pulumi, "environment", lambda: {"PULUMI_BACKEND_URL": f"file://{pulumi.DEMO_STATE}"})
    assert project.project("demo").is_demo
    monkeypatch.setenv("SPARK_ENGINE", "hermetic")
    assert not project.project("head-worker").is_demo


STUBBORN = """#!/bin/bash
# As Pulumi at Ctrl-C: it goes on until what it does can be left, and keeps its state.
trap 'sleep 1; touch kept; exit 1' INT
touch running
while :; do sleep 0.1; done
"""


def interrupted(program, folder):
    """What Python says last of a program that gets Ctrl-C, as the terminal gives it, once Pulumi runs."""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, cwd=pulumi.ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (folder / "running").exists():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    return said.splitlines()[-1]


@pytest.mark.parametrize("call", ["run(['up'], env, folder)", "output(['preview', '--json'], env, folder)"])
def test_pulumi_has_the_time_that_it_needs_after_ctrl_c(call, a_cli, tmp_path):
    (pulumi.FETCHED / "bin" / "pulumi").write_text(STUBBORN)
    program = (
        "from pathlib import Path; from ops import pulumi; "
        f"folder, pulumi.FETCHED = Path('{tmp_path}'), Path('{pulumi.FETCHED}'); "
        f"env = {{'PATH': '/usr/bin:/bin'}}; pulumi.{call}"
    )
    assert interrupted(program, tmp_path) == "KeyboardInterrupt"
    assert (tmp_path / "kept").exists()


LOCKS = """#!/bin/bash
# As Pulumi: a stack is locked until what is done with it has ended, at Ctrl-C too.
if [ "$1" = config ]; then echo "  dgx-spark:$3: $4" >>Pulumi.test.yaml; exit; fi
mkdir locked || exit 1
if [ -e left ]; then cp Pulumi.test.yaml served; rmdir locked; exit; fi
trap 'sleep 1; touch left; rmdir locked; exit 1' INT
touch running
while :; do sleep 0.1; done
"""


def test_ctrl_c_in_a_matrix_leaves_the_stack_as_it_was(a_cli, tmp_path):
    (pulumi.FETCHED / "bin" / "pulumi").write_text(LOCKS)
    before = "config:\n  dgx-spark:model: gpt-oss-120b\n"
    (tmp_path / "Pulumi.test.yaml").write_text(before)
    program = (
        "from pathlib import Path; from ops import bench, matrix, pulumi; from ops.project import Project; "
        "from ops.stack import Stack; from tests.unit.build import settings; "
        f"folder, pulumi.FETCHED = Path('{tmp_path}'), Path('{pulumi.FETCHED}'); "
        "bench.RESULTS, bench.environment = folder / 'results', lambda: folder; "
        "where = Stack(Project(folder, {'PATH': '/usr/bin:/bin'}), 'test', settings()); "
        "wanted = matrix.Wanted(models=['gpt-oss-20b']); "
        "matrix.run(where, wanted, bench.chosen('quick'), lambda text: None)"
    )
    assert interrupted(program, tmp_path) == "KeyboardInterrupt"
    assert (tmp_path / "Pulumi.test.yaml").read_text() == before
    assert (tmp_path / "served").read_text() == before
