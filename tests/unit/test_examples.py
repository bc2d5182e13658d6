"""What examples/ shows is accepted by what is here."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from components import package
from components.settings import load

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_the_yaml_example_names_the_package_its_type_and_settings_that_are():
    program = yaml.safe_load((EXAMPLES / "yaml" / "Pulumi.yaml").read_text())
    ((about),) = program["resources"].values()
    assert about["type"] == package.TOKEN
    assert (EXAMPLES / "yaml" / program["packages"]["dgx-spark"] / "PulumiPlugin.yaml").exists()
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about["properties"].items()}
    made = load({"dgx-spark:engine": "vllm", **{f"dgx-spark:{key}": text for key, text in texts.items()}})
    assert made.serving.max_model_len == 65536
    named = {text.removeprefix("${llm.").removesuffix("}") for text in program["outputs"].values()}
    assert named <= package.OUTPUTS.keys()


def test_the_ci_example_previews_and_looks_for_drift():
    jobs = yaml.safe_load((EXAMPLES / "ci" / "preview-and-drift.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert any(step.get("with", {}).get("command") == "preview" for step in steps)
    assert any("--expect-no-changes" in step.get("run", "") for step in steps)


class Stack:
    def __init__(self, calls, fails):
        self.calls, self.fails = calls, fails

    def set_config(self, key, value):
        self.calls.append((key, value.value))

    def up(self, on_output):
        self.calls.append("up")
        if self.fails:
            raise RuntimeError("no answer")
        values = {"api_base": "http://h:8000/v1", "model": "m", "api_key": ""}
        return SimpleNamespace(outputs={key: SimpleNamespace(value=value) for key, value in values.items()})

    def destroy(self, on_output):
        self.calls.append("destroy")


@pytest.fixture
def job(monkeypatch):
    spec = importlib.util.spec_from_file_location("job", EXAMPLES / "automation" / "job.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_the_automation_example_hands_the_sparks_back_whatever_happens(fails, job, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(job.automation, "create_or_select_stack", lambda name, work_dir: Stack(calls, fails))
    said = tmp_path / "said"
    command = [sys.executable, "-c", f"import os; open({str(said)!r}, 'w').write(os.environ['OPENAI_BASE_URL'])"]
    if fails:
        with pytest.raises(RuntimeError):
            job.run("s", "gpt-oss-20b", command)
    else:
        assert job.run("s", "gpt-oss-20b", command) == 0
        assert said.read_text() == "http://h:8000/v1"
    assert calls == [("model", "gpt-oss-20b"), "up", "destroy"]
    assert "OPENAI_BASE_URL" not in os.environ
