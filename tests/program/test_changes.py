"""What of the resources changes with what: a preview shows it, and nothing else."""

import base64
import json
import re
import shutil

import pytest
import yaml

from components.remote import parcel
from simulator.engine.display import difference
from simulator.engine.values import Secret
from tests.program.record import run
from tests.program.test_order import LAYOUTS

LEASES = {"spark-1-lease", "spark-2-lease"}


def changed(before, after):
    """Resource → lines of its `preview --diff`."""
    names = {name for name, request in after.requests.items() if request.type != "pulumi:pulumi:Stack"}
    assert names <= before.requests.keys()
    lines = {name: difference(before.raw(name), after.raw(name)) for name in names}
    return {name: found for name, found in lines.items() if found}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of the scripts' folders, which the program takes from now on."""
    for name in ("FOLDER", "INSIDE"):
        folder = getattr(parcel, name)
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(parcel, name, tmp_path / folder.name)
    return tmp_path


@pytest.mark.parametrize("layout", ["vLLM on Ray", "TensorRT-LLM on Swarm"])
@pytest.mark.parametrize(
    "script", ["scripts/shared/files.py", "scripts/copy_server.py", "scripts/evict.py", "inside/download.py"]
)
def test_an_edited_script_changes_what_takes_each_spark_and_nothing_else(
    script, layout, scripts, tmp_path, monkeypatch
):
    count, config = LAYOUTS[layout]
    before = run(tmp_path, monkeypatch, count, **config)
    path = scripts / script
    path.write_text(path.read_text() + "\n# A word more.\n")
    after = run(tmp_path, monkeypatch, count, **config)
    assert changed(before, after).keys() == LEASES
    # As an update: new triggers would make it anew.
    assert "triggers" not in after.raw("spark-1-lease")


def test_an_edited_question_changes_nothing(scripts, tmp_path, monkeypatch):
    before = run(tmp_path, monkeypatch)
    for name in parcel.QUESTIONS:
        path = scripts / "scripts" / name
        path.write_text(path.read_text() + "\n# A word more.\n")
    assert not changed(before, run(tmp_path, monkeypatch))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_step_runs_is_laid_before(layout, tmp_path, monkeypatch):
    count, config = LAYOUTS[layout]
    made = run(tmp_path, monkeypatch, count, **config)
    ran = {
        script
        for name in set(made.of_type("command:remote:Command")) - LEASES
        for verb in ("create", "delete")
        for script in re.findall(r"/scripts/(\S+)", made.inputs(name).get(verb) or "")
    }
    assert ran
    assert ran <= parcel.laid_scripts().keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_takes_a_spark_holds_the_text_of_scripts(layout, tmp_path, monkeypatch):
    count, config = LAYOUTS[layout]
    made = run(tmp_path, monkeypatch, count, **config)
    for name in {*made.of_type("command:remote:Command"), *made.of_type("command:local:Command")} - LEASES:
        inputs = made.inputs(name)
        assert "import" not in inputs["stdin"], name
        assert len(inputs["create"]) < 120, name


def test_a_changed_setting_shows_as_that_setting(tmp_path, monkeypatch):
    before = run(tmp_path, monkeypatch, serving={"maxModelLen": 4096})
    lines = changed(before, run(tmp_path, monkeypatch, serving={"maxModelLen": 8192}))
    servers = {"cluster-server", "cluster-server-spark-1", "cluster-server-spark-2"}
    assert lines.keys() == servers
    for name in servers:
        assert {'command: - "--max-model-len=4096"', 'command: + "--max-model-len=8192"'} <= set(lines[name])
    # Beside them, that the ranks belong together.
    assert sum(map(len, lines.values())) == 10


def printed(value):
    """How many lines the CLI's `preview --diff` has for a new value: of a text at most three, but what is JSON, or YAML
    of several lines, is printed whole. Source: pulumi, pkg/backend/display/object_diff.go."""
    if isinstance(value, Secret):
        return 1
    if isinstance(value, str):
        decoded = structured(value)
        return printed(decoded) if decoded else min(3, value.count("\n") + 1)
    if isinstance(value, dict):
        return 2 + sum(map(printed, value.values()))
    return 2 + sum(map(printed, value)) if isinstance(value, list) else 1


def structured(text):
    """The object or list that a text is; None where it is neither."""
    try:
        found = json.loads(text) if "\n" not in text.strip() else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict | list) else None


def test_what_runs_beside_is_shown_without_the_text_of_its_files(tmp_path, monkeypatch):
    keys = {"alice": "sk-of-alice-0123456789"}
    made = run(tmp_path, monkeypatch, monitoring=True, gateway=True, chat=True, gatewayKeys=keys)
    lines = {name: printed(made.raw(name)) for name in made.requests if "cluster-beside" in name}
    assert printed('{"a": [1, 2], "b": "text"}') == 7
    assert max(lines.values()) < 80, lines
    (grafana,) = (name for name in lines if "grafana" in name and "image" not in name and "data" not in name)
    files = {one["file"]: base64.b64decode(one["contentBase64"]) for one in made.raw(grafana)["uploads"]}
    assert any(b'"panels"' in content for content in files.values())


def test_a_changed_setting_of_a_step_shows_as_that_setting(tmp_path, monkeypatch):
    before = run(tmp_path, monkeypatch, serving={"startupTimeout": 1000})
    lines = changed(before, run(tmp_path, monkeypatch, serving={"startupTimeout": 2000}))
    assert lines == {"cluster-endpoint-ready": ["stdin: timeout: 1000 => 2000"]}


def test_the_ranks_key_is_made_once_whatever_becomes_of_its_script(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, engine="sglang")
    # An update would run it again, and a new key replaces every rank.
    assert {"create", "stdin"} <= set(made.requests["cluster-server-key"].ignoreChanges)
