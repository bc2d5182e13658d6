"""A program of one's own: `from components import cluster`, as examples/automation/job.py has it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pulumi
import pytest

import components
from components.resources import cluster as home
from tests.program.record import ROOT, login, run

NODES = [{"name": f"spark-{n}", "host": f"10.0.0.{n}"} for n in (1, 2)]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The example, for two Sparks of the tests."""
    spec = importlib.util.spec_from_file_location("job", ROOT / "examples" / "automation" / "job.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(found)
    monkeypatch.setattr(found, "SETTINGS", {"nodes": NODES, "ssh": login(tmp_path, 2), "apiKey": "sk-private"})
    return found


def test_a_program_of_ones_own_registers_what_this_projects_own_does(tmp_path, monkeypatch):
    values = {"nodes": NODES, "ssh": login(tmp_path, 2), "monitoring": True, "serving": {"maxModelLen": 4096}}
    ours = run(tmp_path, monkeypatch, monitoring=True, serving={"maxModelLen": 4096})
    theirs = run(tmp_path, monkeypatch, program=lambda: components.cluster("cluster", values) and None, nodes=[])
    # The mocks make the stack once for all runs of this process.
    assert theirs.requests.keys() | {"dgx-spark-test"} == ours.requests.keys() | {"dgx-spark-test"}
    for name in theirs.requests:
        assert theirs.inputs(name) == ours.inputs(name), name
        assert theirs.after(name) == ours.after(name), name


def test_the_example_builds_its_model_and_hands_out_where_it_is(job, tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, program=job.program("ORG/other"))
    assert {"spark-1-lease", "spark-2-lease", "llm-server-spark-2", "llm-endpoint-ready"} <= made.requests.keys()
    assert made.inputs("llm")["model"] == "ORG/other"
    assert made.exports["api_base"] == "http://10.0.0.1:8000/v1"
    assert isinstance(made.exports["model"], str)
    assert "sk-private" not in repr({name: made.raw(name) for name in made.requests})


def test_what_is_wrong_is_said_without_a_traceback(tmp_path, monkeypatch):
    """Pulumi shows one behind any other exception."""
    with pytest.raises(pulumi.RunError, match=r"(?s)por.*is not a setting"):
        run(tmp_path, monkeypatch, program=lambda: components.cluster("llm", {"nodes": NODES, "por": 1}) and None)


def test_a_secret_is_refused_where_it_is_known_to_be_in_plain(tmp_path, monkeypatch):
    values = {"nodes": NODES, "ssh": login(tmp_path, 2), "apiKey": "sk-private"}
    with pytest.raises(pulumi.RunError, match="apiKey: is a secret"):
        run(tmp_path, monkeypatch, program=lambda: components.cluster("llm", values, encrypted=[]) and None)


def test_whatever_is_offered_is_there_and_nothing_of_it_is_imported_before():
    assert set(components.__all__) == components.HOMES.keys()
    for name in components.__all__:
        assert getattr(components, name) is not None
    assert components.Cluster is home.Cluster
    with pytest.raises(AttributeError, match="no attribute 'clusters'"):
        components.clusters  # noqa: B018 - looked up, as `from components import` does
    # -S: no package is found, as on a machine where `python3` is another one than the program's.
    argv = [sys.executable, "-S", "-c", "import sys, components; print([m for m in sys.modules if 'components.' in m])"]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


class Stack:
    """A workspace's, that keeps what was asked of it."""

    def __init__(self, calls, fails):
        self.calls, self.fails = calls, fails

    def up(self, on_output, refresh):
        self.calls.append("up")
        if self.fails:
            raise RuntimeError("no answer")
        values = {"api_base": "http://h:8000/v1", "model": "m"}
        return SimpleNamespace(outputs={key: SimpleNamespace(value=value) for key, value in values.items()})

    def destroy(self, on_output, remove):
        self.calls.append("destroy, with the stack" if remove else "destroy")


@pytest.fixture
def calls(job, monkeypatch):
    return workspace(job, monkeypatch, fails=False)


def workspace(job, monkeypatch, fails):
    made = []

    def create_or_select_stack(stack_name, project_name, program, opts):
        folder = Path(opts.work_dir)
        assert folder.is_dir()
        assert not folder.is_relative_to(ROOT)
        assert callable(program)
        made.append(folder)
        return Stack(made, fails)

    monkeypatch.setattr(job.automation, "create_or_select_stack", create_or_select_stack)
    return made


def stack_files():
    return {path: path.read_bytes() for path in ROOT.glob("Pulumi*.yaml")}


def test_the_example_serves_for_one_command_and_leaves_nothing(job, calls, tmp_path):
    before, said = stack_files(), tmp_path / "said"
    words = f"import os; open({str(said)!r}, 'w').write(' '.join(os.environ[n] for n in {NAMES}))"
    assert job.run("gpt-oss-20b", [sys.executable, "-c", words]) == 0
    assert said.read_text() == "http://h:8000/v1 m sk-private"
    folder, *steps = calls
    assert steps == ["up", "destroy, with the stack"]
    assert not folder.exists()
    assert stack_files() == before
    assert "OPENAI_BASE_URL" not in os.environ


NAMES = ["OPENAI_BASE_URL", "MODEL", "OPENAI_API_KEY"]


def test_the_sparks_are_handed_back_when_the_job_fails(job, calls):
    assert job.run("gpt-oss-20b", [sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert calls[1:] == ["up", "destroy, with the stack"]


def test_the_sparks_are_handed_back_when_there_is_no_such_job(job, calls):
    with pytest.raises(FileNotFoundError):
        job.run("gpt-oss-20b", ["/no/such/program"])
    assert calls[1:] == ["up", "destroy, with the stack"]


def test_the_sparks_are_handed_back_when_the_model_does_not_come_up(job, monkeypatch):
    calls = workspace(job, monkeypatch, fails=True)
    with pytest.raises(RuntimeError):
        job.run("gpt-oss-20b", ["/no/such/program"])
    assert calls[1:] == ["up", "destroy, with the stack"]
    assert not calls[0].exists()
