"""Which stack a command means, and what that one is called on its Sparks."""

import json
from types import SimpleNamespace

import pytest

from ops import destroy, pulumi
from ops.project import Project, project
from ops.pulumi import CommandError
from ops.stack import Stack
from tests.unit.build import settings

CLOUD = {"x": "anna/dgx-spark/x", "team/x": "team/dgx-spark/x"}
"""Two stacks of one name as Pulumi Cloud lists them, whose default organization here is anna → fully qualified."""


@pytest.fixture
def where(tmp_path, monkeypatch):
    """Nothing has been brought up, or the state is lost."""

    def output(words, env, folder):
        if words[:2] == ["stack", "ls"]:
            return json.dumps([{"name": name, "current": name == "team/x"} for name in CLOUD])
        if words[:2] == ["stack", "output"]:
            return "{}"
        assert words[:-1] == ["stack", "--show-name", "--fully-qualify-stack-names", "--stack"]
        return CLOUD[words[-1]]

    monkeypatch.setattr(pulumi, "output", output)
    return Project(tmp_path, {})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, "team/x"),
        ("x", "x"),
        ("anna/x", "x"),
        ("anna/dgx-spark/x", "x"),
        ("team/x", "team/x"),
        ("team/dgx-spark/x", "team/x"),
    ],
)
def test_a_stack_is_named_as_for_pulumi_itself(said, meant, where):
    chosen = where.chosen(said)
    assert chosen == meant
    assert where.file(chosen).name == "Pulumi.x.yaml"


@pytest.mark.parametrize("said", ["y", "bob/x", "anna/other/x", "anna/dgx-spark/y"])
def test_a_stack_that_is_not_there_is_refused_with_those_that_are(said, where):
    with pytest.raises(CommandError, match=rf"there is no stack {said}, but x, team/x: pulumi stack init {said}"):
        where.chosen(said)


@pytest.mark.parametrize("name", CLOUD)
def test_without_outputs_the_organization_is_pulumis(name, where):
    assert Stack(where, name, settings()).identity == CLOUD[name]


def test_a_file_backend_that_knows_no_projects_has_the_organization_that_the_program_gets(tmp_path, monkeypatch):
    monkeypatch.setattr(pulumi, "output", lambda words, env, folder: "{}" if "output" in words else "x")
    assert Stack(Project(tmp_path, {}), "x", settings()).identity == "organization/dgx-spark/x"


def test_after_a_lost_state_sparks_are_swept_by_the_label_that_their_containers_have(where, monkeypatch):
    def run(argv, input, **_):
        swept.append(json.loads(input)["input"])
        return SimpleNamespace(returncode=0, stderr="")

    swept = []
    monkeypatch.setattr(destroy.subprocess, "run", run)
    cluster = Stack(where, "x", settings())
    assert destroy.sweep(cluster, cluster.settings.nodes) == {}
    assert [inputs["stack"] for inputs in swept] == ["anna/dgx-spark/x"] * 2


@pytest.mark.parametrize(("name", "demo"), [("organization/dgx-spark/demo", True), ("team/dgx-spark/demo", False)])
def test_the_demonstration_is_in_no_organization_of_the_cloud(name, demo, monkeypatch):
    monkeypatch.setattr(pulumi, "environment", lambda: {"PULUMI_BACKEND_URL": f"file://{pulumi.DEMO_STATE}"})
    monkeypatch.setenv("SPARK_ENGINE", "pulumi")
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr(pulumi, "fetch", lambda say: True)
    assert project(name).is_demo == demo
