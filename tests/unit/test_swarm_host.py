"""Docker's settings for Swarm: merged with what is there, and taken out again."""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings

from components.remote import parcel
from tests.examples import some
from tests.unit.home import STACK, Home, record

UUID = "GPU-1111"
TOOLKIT = '#accept = false\n#swarm-resource = "DOCKER_RESOURCE_GPU"\n\n[nvidia-container-cli]\nload-kmods = true\n'


SYSTEMCTL = """#!{python}
# As strict as systemd and dockerd: a bad file or a key that the unit has as a flag, and Docker is down; a unit that
# has failed is not started again before reset-failed.
import json, sys
from pathlib import Path
spark = Path("{spark}")
failed, info = spark / "failed", spark / "info"
with (spark / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if sys.argv[1] == "reset-failed":
    failed.unlink(missing_ok=True)
    sys.exit()
def fail(why):
    info.unlink(missing_ok=True)
    failed.touch()
    (spark / "journal").write_text(f"Starting Docker\\n{{why}}\\ndocker.service: Failed with result 'exit-code'.\\n")
    sys.exit("Job for docker.service failed because the control process exited with error code.")
if failed.exists():
    fail("Start request repeated too quickly.")
flags = json.loads((spark / "flags").read_text())
file = Path("{daemon}")
try:
    known = json.loads((file.read_bytes().decode() if file.exists() else "").strip() or "{{}}")
except ValueError as error:
    fail(f"unable to configure the Docker daemon with file {{file}}: {{error}}")
both = sorted(set(known) & set(flags))
if both:
    fail("unable to configure the Docker daemon with file {daemon}: the following directives are specified both as "
         f"a flag and in the configuration file: {{', '.join(both)}}")
known = {{**known, **flags}}
runtimes = {{"runc": {{}}, **(known.get("runtimes") or {{}})}}
default = known.get("default-runtime", "runc")
if default not in runtimes:
    fail(f"unable to configure the Docker daemon: specified default runtime '{{default}}' does not exist")
live = known.get("live-restore", False)
info.write_text(json.dumps({{"Runtimes": runtimes, "DefaultRuntime": default, "LiveRestoreEnabled": live}}))
"""


class Spark(Home):
    """A home with the two files, and a Docker that reads daemon.json as dockerd does when it is restarted."""

    def __init__(self, path, daemon, toolkit, flags):
        super().__init__(path)
        self.daemon, self.toolkit = path / "docker/daemon.json", path / "nvidia/config.toml"
        for file, text in ((self.daemon, daemon), (self.toolkit, toolkit)):
            file.parent.mkdir(exist_ok=True)
            if text is not None:
                file.write_bytes(text.encode())
        (path / "flags").write_text(json.dumps(flags))
        self.programs = path / "bin"
        self.programs.mkdir()
        self.program("systemctl", SYSTEMCTL.format(python=sys.executable, spark=path, daemon=self.daemon))
        self.program("journalctl", f"#!/bin/sh\ncat {path}/journal\n")
        self.program("nvidia-container-runtime", "#!/bin/sh\n")
        subprocess.run([self.programs / "systemctl", "restart", "docker"], check=True)
        (path / "calls").unlink()

    def program(self, name, text):
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def ask(self, verb, *, keep=False, uuid=UUID):
        return self.run(
            "swarm_host.py", verb, uuid=uuid, kind="GPU", shm_size=16384, stack_limit=67108864, keep=keep,
            daemon=str(self.daemon), toolkit=str(self.toolkit), record=record("swarm-host"),
        )  # fmt: skip

    def set_up(self, verb, **options):
        done = self.ask(verb, **options)
        assert done.returncode == 0, done.stderr

    def texts(self):
        files = (self.daemon, self.toolkit)
        return [file.read_bytes().decode() if file.exists() else None for file in files]

    def restarts(self):
        calls = self.path / "calls"
        return calls.read_text().count("restart docker") if calls.exists() else 0

    def answers(self):
        return json.loads((self.path / "info").read_text()) if (self.path / "info").exists() else None

    def succeeded(self):
        """Is there a record of these settings, which the next preview takes for intact?"""
        file = self.path / ".local/state/dgx-spark" / STACK.replace("/", ".") / "swarm-host.json"
        return file.exists() and json.loads(file.read_text())["spec"] == "s"


@pytest.fixture
def spark(tmp_path, monkeypatch):
    """Makes a Spark, whose Docker answers from what its stand-in for systemd has written."""
    made = []
    docker = (parcel.FOLDER / "shared/docker.py").read_text()

    def make(daemon, toolkit=TOOLKIT, **flags):
        home = tmp_path / f"home-{len(made)}"
        home.mkdir()
        made.append(Spark(home, daemon, toolkit, flags))
        answer = f'return json.loads(read_fresh("{home}/info")) if path == "/info" else []'
        fresh = "def read_fresh(path):\n    with open(path) as stream:\n        return stream.read()\n"
        patched = docker.replace('return self._ask("GET", path)', answer) + fresh
        script = parcel.script
        monkeypatch.setattr(parcel, "script", lambda name: patched if name == "shared/docker.py" else script(name))
        monkeypatch.setenv("PATH", f"{made[-1].programs}:/usr/bin:/bin")
        return made[-1]

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
    assert home.restarts() == 1
    home.set_up("apply", uuid="GPU-another-board")
    assert json.loads(home.daemon.read_text())["node-generic-resources"] == ["GPU=GPU-another-board"]
    assert home.restarts() == 2


DAEMONS = (
    None, "", " \n\t\n", "{}", '{ "log-driver":"local" }', '{"default-runtime": "runc"}\n',
    '{\r\n  "debug": true\r\n}\r\n',
    '{"runtimes": null, "default-ulimits": null, "node-generic-resources": null}',
)  # fmt: skip
TOOLKITS = (None, "", TOOLKIT, "[a]\nb = 1", "[a]\r\nb = 1\r\n", 'swarm-resource = "X"\n[a]\n', "# note")


@pytest.mark.parametrize(
    ("daemon", "toolkit"),
    [*((daemon, TOOLKIT) for daemon in DAEMONS), *((None, toolkit) for toolkit in TOOLKITS if toolkit != TOOLKIT)],
)
def test_both_files_are_handed_back_byte_for_byte(spark, daemon, toolkit):
    home = spark(daemon, toolkit)
    home.set_up("apply")
    assert home.texts() != [daemon, toolkit]
    home.set_up("remove")
    assert home.texts() == [daemon, toolkit]
    assert home.restarts() == 2


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


@hypothesis_settings(max_examples=some(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, ended=strategies.booleans())
def test_the_variable_is_named_above_the_first_table(spark, lines, ended):
    toolkit = "\n".join(lines) + ("\n" if ended and lines else "")
    home = spark("{}", toolkit)
    home.set_up("apply")
    before_tables = home.toolkit.read_text().split("[")[0].splitlines()
    assert before_tables.count('swarm-resource = "DOCKER_RESOURCE_GPU"') == 1
    home.set_up("remove")
    assert home.toolkit.read_text() == toolkit


def test_the_nvidia_runtime_is_registered_where_it_is_not_and_left_alone_where_it_is(spark):
    home = spark(None)
    home.set_up("apply")
    assert home.answers()["Runtimes"]["nvidia"] == {"path": "nvidia-container-runtime", "args": []}
    assert home.answers()["DefaultRuntime"] == "nvidia"
    mine = {"nvidia": {"path": "/opt/mine", "args": ["-x"]}}
    home = spark(json.dumps({"runtimes": mine}))
    home.set_up("apply")
    assert json.loads(home.daemon.read_text())["runtimes"] == mine
    # Given to dockerd as a flag: it would not start with the same key in its file.
    home = spark("{}", runtimes=mine)
    home.set_up("apply")
    assert home.answers()["Runtimes"]["nvidia"] == mine["nvidia"]


def test_a_spark_without_nvidias_runtime_is_told_what_to_install(spark):
    home = spark("{}")
    (home.programs / "nvidia-container-runtime").unlink()
    done = home.ask("apply")
    assert "sudo apt install nvidia-container-toolkit" in done.stderr
    assert home.texts() == ["{}", TOOLKIT]
    assert home.restarts() == 0


@pytest.mark.parametrize("daemon", [None, '{"debug": true}\r\n'])
def test_where_docker_does_not_start_with_them_both_files_go_back_and_docker_comes_up_again(spark, daemon):
    home = spark(daemon, **{"default-shm-size": "1G"})
    done = home.ask("apply")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "both as a flag and in the configuration file: default-shm-size" in done.stderr
    assert "are as they were" in done.stderr
    assert home.texts() == [daemon, TOOLKIT]
    assert home.answers()["DefaultRuntime"] == "runc"
    assert not home.succeeded()
    # And it can be done once the flag is gone.
    (home.path / "flags").write_text("{}")
    home.set_up("apply")
    assert home.answers()["DefaultRuntime"] == "nvidia"
    assert home.succeeded()
    home.set_up("remove")
    assert home.texts() == [daemon, TOOLKIT]


def test_docker_that_reads_another_file_is_no_success(spark):
    home = spark("{}")
    home.program("systemctl", "#!/bin/sh\n")
    done = home.ask("apply")
    assert "it did not take them" in done.stderr
    assert home.texts() == ["{}", TOOLKIT]
    assert not home.succeeded()


def test_files_that_were_written_without_the_restart_behind_them_are_not_enough(spark):
    home = spark("{}")
    real = (home.programs / "systemctl").read_text()
    home.program("systemctl", "#!/bin/sh\nkill -9 $PPID\n")
    assert home.ask("apply").returncode != 0
    assert not home.succeeded()
    home.program("systemctl", real)
    home.set_up("apply")
    assert home.answers()["DefaultRuntime"] == "nvidia"
    home.set_up("remove")
    assert home.texts() == ["{}", TOOLKIT]


@pytest.mark.parametrize(("daemon", "flags"), [('{"live-restore": true}', {}), (None, {"live-restore": True})])
def test_live_restore_with_which_there_is_no_swarm_is_refused_before_anything_is_touched(spark, daemon, flags):
    home = spark(daemon, **flags)
    done = home.ask("apply")
    assert 'set "live-restore": false in' in done.stderr
    assert "sudo systemctl restart docker" in done.stderr
    assert home.texts() == [daemon, TOOLKIT]
    assert home.restarts() == 0


@pytest.mark.parametrize("daemon", ["{", "[]", '"a"'])
def test_a_daemon_json_that_is_none_is_refused_and_left(spark, daemon):
    home = spark("{}")
    home.daemon.write_text(daemon)
    done = home.ask("apply")
    assert "correct it first" in done.stderr
    assert home.texts() == [daemon, TOOLKIT]


def test_a_runtime_that_somebody_added_since_stays_when_ours_go(spark):
    home = spark('{"runtimes": {"kata": {"path": "kata"}}}')
    home.set_up("apply")
    daemon = json.loads(home.daemon.read_text())
    daemon["runtimes"]["youki"] = {"path": "youki"}
    daemon["node-generic-resources"].append("FPGA=1")
    daemon["default-ulimits"]["nofile"] = {"Name": "nofile", "Soft": 9, "Hard": 9}
    home.daemon.write_text(json.dumps(daemon))
    home.set_up("remove")
    assert json.loads(home.daemon.read_text()) == {
        "runtimes": {"kata": {"path": "kata"}, "youki": {"path": "youki"}},
        "node-generic-resources": ["FPGA=1"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 9, "Hard": 9}},
    }


def test_a_daemon_json_that_is_a_link_stays_one(spark):
    home = spark(None)
    elsewhere = home.path / "mine.json"
    elsewhere.write_text("{}")
    home.daemon.symlink_to(elsewhere)
    home.set_up("apply")
    assert json.loads(elsewhere.read_text())["default-runtime"] == "nvidia"
    assert home.daemon.is_symlink()
    home.set_up("remove")
    assert elsewhere.read_text() == "{}"
