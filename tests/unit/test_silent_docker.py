"""Docker that is there and answers nothing, a disk that is full, a head without power: a script ends, and says why."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from components.scripts.shared import files, job
from components.scripts.shared.upstream import ssh_upstream
from tests.unit.home import Home, record

SCRIPTS = Path(files.__file__).parents[1]
LIMIT = 30

USES_DOCKER = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from shared import docker

class Here(docker.Docker):
    def connect(self):
        self.sock = docker.socket.socket(docker.socket.AF_UNIX)
        self.sock.settimeout(0.2)
        self.sock.connect(sys.argv[2])

docker.Docker, docker.PATIENCE = Here, 0.2
child = subprocess.Popen(["sh", "-c", f"echo begun; exec sleep {sys.argv[3]}"], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
docker.attended()
child.wait()
print("done")
"""


@pytest.fixture
def silent(tmp_path):
    """A socket that takes connections and answers nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen(50)
        yield tmp_path / "docker.sock"


def started(path, seconds):
    argv = [sys.executable, "-c", USES_DOCKER, str(SCRIPTS), str(path), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_script_whose_docker_hangs_ends_with_all_that_it_has_started(silent):
    script = started(silent, 1000)
    # Its standard error is the child's too, and ends when both have.
    said, error = script.communicate(timeout=LIMIT)
    assert (script.returncode, said) == (1, "begun\n")
    assert "Docker does not answer" in error
    assert "sudo systemctl restart docker" in error


def test_a_script_whose_docker_is_being_restarted_goes_on(tmp_path):
    said, _ = started(tmp_path / "nowhere", 2).communicate(timeout=LIMIT)
    assert said == "begun\ndone\n"


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_finds_no_room_leaves_nothing_and_the_one_before_it(tmp_path, monkeypatch):
    path = tmp_path / "lease.json"
    files.write_file(str(path), "before")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        files.write_file(str(path), "after")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("lease.json", "before")]


def test_what_the_system_refuses_is_said_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as said, job.said_in_a_line():
        with contextlib.suppress(ZeroDivisionError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/x/weights.json")
    assert str(said.value) == ("No space left on device: /home/x/weights.json; make room there, then `pulumi up` again")
    loading = "vllm: the copy failed: write /blobs/sha256/0013: no space left on device"
    with pytest.raises(SystemExit) as said, job.said_in_a_line():
        sys.exit(loading)
    assert str(said.value) == f"{loading}; make room there, then `pulumi up` again"
    with pytest.raises(SystemExit, match="Docker does not answer"), job.said_in_a_line():
        raise TimeoutError("Docker does not answer within 30 s")


KEYGEN = """#!/bin/sh
for word; do file=$word; done
head -c 50 /dev/zero > "$file"
echo "Saving key \\"$file\\" failed: No space left on device" >&2
exit 1
"""


def test_a_key_that_finds_no_room_is_made_by_the_next_run(tmp_path, monkeypatch):
    home = Home(tmp_path)
    home.lease("apply")
    full = tmp_path / "full"
    full.mkdir()
    (full / "ssh-keygen").write_text(KEYGEN)
    (full / "ssh-keygen").chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{full}:{path}")
    failed = home.step("copy_key.py", "apply", record=record("copy-key"))
    assert failed.returncode == 1
    said = '/copy_key" failed: No space left on device; make room there, then `pulumi up` again\n'
    assert failed.stderr.endswith(said)
    assert "Traceback" not in failed.stderr
    monkeypatch.setenv("PATH", path)
    assert home.step("copy_key.py", "apply", record=record("copy-key")).stdout.startswith("ssh-ed25519 ")


def test_a_copy_notices_that_the_head_has_lost_power():
    source = {"address": "192.168.177.1", "own": "192.168.177.2", "user": "nvidia", "port": 22, "host_key": "k"}
    assert "ServerAliveInterval=15" in ssh_upstream(source, "/key")
