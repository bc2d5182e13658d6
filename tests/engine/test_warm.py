"""A warm start (simulator/engine/warm.py) is a start like any other, only sooner."""

import os
import signal
import subprocess
import sys

import pytest

from simulator.engine import warm
from tests.engine.lab import PASSPHRASE, SALT, Lab

pytestmark = pytest.mark.usefixtures("hermetic")

PARENT = "import os\nprint('parent', os.getppid(), end=';')\n"


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_all_programs_have_the_server_as_their_parent(lab, monkeypatch):
    lab.program(PARENT)
    first, second = (lab.run("preview").text.split("parent ")[1].split(";")[0] for _ in range(2))
    monkeypatch.delenv(warm.SOCKET)
    cold = lab.run("preview").text.split("parent ")[1].split(";")[0]
    assert first == second != cold


def test_words_input_output_and_exit_code_are_the_runs_own(lab):
    def engine(*words, text=""):
        argv = [sys.executable, "-m", "simulator.engine", *words]
        return subprocess.run(argv, env=lab.environment(), cwd=lab.folder, input=text, capture_output=True, text=True)

    assert engine("config", "set", "motd", text="read from stdin\n").returncode == 0
    known, unknown = engine("config", "get", "motd"), engine("config", "get", "nothing")
    assert (known.returncode, known.stdout, known.stderr) == (0, "read from stdin\n", "")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "configuration key 'nothing' not found" in unknown.stderr
    assert engine("no-such-command").returncode == 2


def test_one_run_leaves_nothing_to_the_next(lab, monkeypatch):
    program = "import os, sys\nprint([os.environ.get('COLOUR'), getattr(sys, 'left', None)])\n"
    monkeypatch.setenv("COLOUR", "red")
    assert "['red', None]" in lab.run("preview", program=program + "os.environ['COLOUR'] = sys.left = 'x'\n").text
    monkeypatch.delenv("COLOUR")
    assert "[None, None]" in lab.run("preview", program=program).text


def test_modules_of_one_name_are_those_of_each_folder_as_they_are_now(tmp_path):
    labs = {}
    for word in ("one", "two", "six"):
        folder = tmp_path / ("second" if word == "two" else "first")
        if folder not in labs:
            folder.mkdir()
            labs[folder] = Lab(folder)
        (folder / "components.py").write_text(f"WORD = '{word}'\n")
        # Of one length and time, as by two writes in a second: bytecode would pass for that of the other.
        os.utime(folder / "components.py", (1, 1))
        shown = labs[folder].run("preview", program="import components\nprint('it says', components.WORD)\n").text
        assert f"it says {word}" in shown


def test_a_run_that_a_signal_ends_ends_its_client_so(lab):
    lab.program("import os\nos.kill(os.getpid(), 9)\n")
    failed = lab.up()
    assert failed.code == 1
    assert "program exited with non-zero exit code: -9" in failed.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_a_client_ends_its_run(lab, number):
    os.mkfifo(lab.folder / "started")
    lab.program("local.Command('slow', create='echo > started; sleep 3')\n")
    # The run has the writing end of this pipe too: what reads from it ends with the run.
    with subprocess.Popen(
        [sys.executable, "-m", "simulator.engine", "up", "--yes", "--skip-preview"],
        env=lab.environment(), cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as client:  # fmt: skip
        (lab.folder / "started").read_text()
        client.send_signal(number)
        client.communicate(timeout=30)
    assert client.returncode == (255 if number == signal.SIGTERM else -signal.SIGKILL)


def test_a_server_that_dies_fails_the_run_that_it_had_and_all_that_come(lab, monkeypatch):
    with warm.server(PASSPHRASE, SALT) as socket:
        monkeypatch.setenv(warm.SOCKET, socket)
        lab.program("import os\nos.kill(os.getppid(), 9)\n")
        for _ in range(2):
            failed = lab.up()
            assert failed.code == 1, failed.text
        assert "Connection refused" in failed.text
