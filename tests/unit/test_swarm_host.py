"""Docker's settings for Swarm: merged with what is there, and taken out again."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings

from tests.unit.test_scripts import Home, record

UUID = "GPU-1111"
TOOLKIT = '#accept = false\n#swarm-resource = "DOCKER_RESOURCE_GPU"\n\n[nvidia-container-cli]\nload-kmods = true\n'


class Spark(Home):
    """A home with the two files, and programs that note what was asked of them."""

    def __init__(self, path, daemon, toolkit):
        super().__init__(path)
        self.daemon, self.toolkit = path / "docker/daemon.json", path / "nvidia/config.toml"
        for file, text in ((self.daemon, daemon), (self.toolkit, toolkit)):
            file.parent.mkdir(exist_ok=True)
            if text is not None:
                file.write_text(text)
        (path / "bin").mkdir(exist_ok=True)

    def set_up(self, verb, *, keep=False, uuid=UUID):
        done = self.run(
            "swarm_host.py", verb, uuid=uuid, kind="GPU", shm_size=16384, stack_limit=67108864, keep=keep,
            daemon=str(self.daemon), toolkit=str(self.toolkit), record=record("swarm-host"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def texts(self):
        return [file.read_text() if file.exists() else None for file in (self.daemon, self.toolkit)]


@pytest.fixture
def spark(tmp_path, monkeypatch):
    """Makes a Spark; Docker's restart is a stand-in, whose calls are counted."""
    calls = tmp_path / "restarts"
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(f"#!/bin/sh\necho restart >> {calls}\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    from components.remote import parcel

    # The daemon's socket is not here: no container runs.
    common = (parcel.FOLDER / "common.py").read_text()
    no_docker = common.replace('return self._ask("GET", path)', "return []")
    monkeypatch.setattr(parcel, "common_text", lambda: no_docker)
    made = []

    def make(daemon, toolkit):
        home = tmp_path / f"home-{len(made)}"
        home.mkdir()
        made.append(Spark(home, daemon, toolkit))
        return made[-1]

    make.restarts = lambda: calls.read_text().count("restart") if calls.exists() else 0
    return make


def test_settings_of_others_stay_and_ours_are_there(spark):
    home = spark(
        '{"log-driver": "local", "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 9, "Hard": 9}}}', TOOLKIT
    )
    home.set_up("apply")
    daemon = json.loads(home.daemon.read_text())
    assert daemon["log-driver"] == "local"
    assert daemon["default-ulimits"].keys() == {"nofile", "memlock", "stack"}
    assert daemon["node-generic-resources"] == [f"GPU={UUID}"]
    assert daemon["default-runtime"] == "nvidia"
    assert daemon["default-shm-size"] == "16384M"
    top = home.toolkit.read_text().split("[")[0]
    assert '\nswarm-resource = "DOCKER_RESOURCE_GPU"\n' in top


def test_docker_is_restarted_only_when_something_changed(spark):
    home = spark("{}", TOOLKIT)
    home.set_up("apply")
    home.set_up("apply")
    assert spark.restarts() == 1
    home.set_up("apply", uuid="GPU-another-board")
    assert json.loads(home.daemon.read_text())["node-generic-resources"] == ["GPU=GPU-another-board"]
    assert spark.restarts() == 2


@pytest.mark.parametrize("daemon", [None, "{}", '{ "log-driver":"local" }', '{"default-runtime": "runc"}\n'])
@pytest.mark.parametrize("toolkit", [None, "", TOOLKIT, "[a]\nb = 1", 'swarm-resource = "X"\n[a]\n', "# note"])
def test_both_files_are_handed_back_byte_for_byte(spark, daemon, toolkit):
    home = spark(daemon, toolkit)
    home.set_up("apply")
    assert home.texts() != [daemon, toolkit]
    home.set_up("remove")
    assert home.texts() == [daemon, toolkit]
    assert spark.restarts() == 2


def test_what_somebody_changed_since_stays(spark):
    home = spark('{"default-runtime": "runc"}', TOOLKIT)
    home.set_up("apply")
    home.daemon.write_text(json.dumps({**json.loads(home.daemon.read_text()), "debug": True}))
    home.toolkit.write_text(home.toolkit.read_text() + "# added\n")
    home.set_up("remove")
    assert json.loads(home.daemon.read_text()) == {"default-runtime": "runc", "debug": True}
    assert home.toolkit.read_text() == TOOLKIT + "# added\n"


def test_they_stay_where_the_user_wants_to_keep_the_swarm(spark):
    home = spark("{}", TOOLKIT)
    home.set_up("apply", keep=True)
    after = home.texts()
    home.set_up("remove")
    assert home.texts() == after


LINES = strategies.lists(
    strategies.sampled_from(["# c", "", "[table]", "[[array]]", "key = 1", '#swarm-resource = "DOCKER_RESOURCE_GPU"'])
)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, ended=strategies.booleans())
def test_the_variable_is_named_above_the_first_table(spark, lines, ended):
    toolkit = "\n".join(lines) + ("\n" if ended and lines else "")
    home = spark("{}", toolkit)
    home.set_up("apply")
    before_tables = home.toolkit.read_text().split("[")[0].splitlines()
    assert before_tables.count('swarm-resource = "DOCKER_RESOURCE_GPU"') == 1
    home.set_up("remove")
    assert home.toolkit.read_text() == toolkit
