"""`./spark adopt`: what is as it is wanted stays as it runs, and Pulumi takes it for made."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from copy import deepcopy

import pytest

from components.plan.values import RANK_KEY
from components.programs import adopting
from components.scripts.shared.same import differences
from ops.adopt import told
from tests.unit.home import STACK

WANTED = {
    "name": "dgx-spark-test-server",
    "image": "sha256:1111",
    "command": ["python3", "together.py", "--port=1"],
    "envs": ["B=2", "PATH=/ours"],
    "labels": [{"label": "dgx-spark.stack", "value": STACK}],
    "networkMode": "host",
    "ipcMode": "host",
    "pidMode": "container:abc",
    "gpus": "all",
    "init": True,
    "shmSize": 64,
    "ulimits": [{"name": "memlock", "soft": -1, "hard": -1}],
    "capabilities": {"adds": ["IPC_LOCK"], "drops": ["ALL"]},
    "securityOpts": ["label=disable", "no-new-privileges=true"],
    "devices": [{"hostPath": "/dev/infiniband", "containerPath": "/dev/infiniband", "permissions": "rwm"}],
    "volumes": [
        {"hostPath": "/home/me/models", "containerPath": "/models", "readOnly": True},
        {"volumeName": "ray", "containerPath": "/tmp/ray"},
    ],
    "uploads": [{"file": "/run/secrets/rank_key", "content": "key\n"}],
    "restart": "on-failure",
    "maxRetryCount": 3,
    "destroyGraceSeconds": 30,
    "mustRun": True,
}
IMAGE = {
    "Id": "sha256:1111",
    "Config": {"Env": ["PATH=/usr/bin", "A=1"], "Entrypoint": ["/entry"], "Cmd": ["bash"], "Labels": {"vendor": "NV"}},
}
FOUND = {
    "Id": "0123456789abcdef",
    "Image": "sha256:1111",
    "State": {"Running": True},
    "Config": {
        "Entrypoint": ["/entry"],
        "Cmd": ["python3", "together.py", "--port=1"],
        "Env": ["PATH=/ours", "B=2", "A=1"],
        "Labels": {"dgx-spark.stack": STACK, "vendor": "NV"},
    },
    "HostConfig": {
        "NetworkMode": "host",
        "IpcMode": "host",
        "PidMode": "container:abc",
        "DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}],
        "Init": True,
        "Privileged": False,
        "ShmSize": 67108864,
        "Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}],
        "CapAdd": ["CAP_IPC_LOCK"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges=true", "label=disable"],
        "Devices": [
            {"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband", "CgroupPermissions": "rwm"}
        ],
        "Binds": ["ray:/tmp/ray:rw", "/home/me/models:/models:ro"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    },
}
FILES = {"/run/secrets/rank_key": b"key\n"}


def changed(start, path, value):
    copy = deepcopy(start)
    *above, last = path.split(".")
    inner = copy
    for key in above:
        inner = inner[key]
    inner[last] = value
    return copy


def test_a_container_that_docker_made_of_the_same_inputs_is_the_same():
    assert differences(WANTED, FOUND, IMAGE, FILES.get) == []


def test_a_file_that_is_given_in_base64_is_compared_as_it_shall_be_in_the_container():
    wanted = {**WANTED, "uploads": [{"file": "/a", "contentBase64": "w7wK"}, {"file": "/b", "content": "b"}]}
    assert differences(wanted, FOUND, IMAGE, {"/a": "ü\n".encode(), "/b": b"b"}.get) == []
    assert differences(wanted, FOUND, IMAGE, {"/a": b"w7wK", "/b": b"b"}.get) == ["/a"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("Image", "sha256:2222", "image"),
        ("State.Running", False, "not running"),
        ("Config.Cmd", ["python3", "together.py", "--port=2"], "command"),
        ("Config.Entrypoint", None, "entrypoints"),
        ("Config.Env", ["PATH=/usr/bin", "B=2", "A=1"], "envs"),
        ("Config.Env", ["PATH=/ours", "B=2", "A=1", "C=by hand"], "envs"),
        ("Config.Labels", {"dgx-spark.stack": STACK}, "labels"),
        ("HostConfig.NetworkMode", "bridge", "networkMode"),
        ("HostConfig.IpcMode", "private", "ipcMode"),
        ("HostConfig.PidMode", "container:def", "pidMode"),
        ("HostConfig.DeviceRequests", None, "gpus"),
        ("HostConfig.DeviceRequests", [{"Count": 1, "Capabilities": [["gpu"]]}], "gpus"),
        ("HostConfig.Init", None, "init"),
        ("HostConfig.Privileged", True, "privileged"),
        ("HostConfig.ShmSize", 1, "shmSize"),
        ("HostConfig.Ulimits", [{"Name": "memlock", "Soft": 0, "Hard": -1}], "ulimits"),
        ("HostConfig.CapAdd", ["CAP_IPC_LOCK", "CAP_SYS_PTRACE"], "capabilities"),
        ("HostConfig.CapDrop", None, "capabilities"),
        ("HostConfig.SecurityOpt", ["label=disable"], "securityOpts"),
        ("HostConfig.Devices", [], "devices"),
        ("HostConfig.Binds", ["ray:/tmp/ray:rw", "/home/me/models:/models"], "volumes"),
        ("HostConfig.RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}, "restart"),
    ],
)
def test_in_whatever_a_container_differs_it_is_another(path, value, said):
    assert said in differences(WANTED, changed(FOUND, path, value), IMAGE, FILES.get)


def test_a_file_of_other_content_or_none_is_named_without_its_content():
    assert differences(WANTED, FOUND, IMAGE, {}.get) == ["/run/secrets/rank_key"]
    assert differences(WANTED, FOUND, IMAGE, lambda _: b"other") == ["/run/secrets/rank_key"]


def test_what_is_not_compared_is_not_taken_for_the_same():
    assert differences({**WANTED, "sysctls": {"a": "1"}}, FOUND, IMAGE, FILES.get) == ["sysctls"]
    assert differences({**WANTED, "sysctls": {}, "tty": False}, FOUND, IMAGE, FILES.get) == []


def test_an_entrypoint_of_ones_own_leaves_out_the_images_command():
    plain = {key: value for key, value in WANTED.items() if key != "command"}
    assert differences(plain, changed(FOUND, "Config.Cmd", ["bash"]), IMAGE, FILES.get) == []
    own = changed(changed(FOUND, "Config.Cmd", None), "Config.Entrypoint", ["/mine"])
    assert differences({**plain, "entrypoints": ["/mine"]}, own, IMAGE, FILES.get) == []


def archive(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def spark(host):
    """A Spark with that container, whose Docker says what it was asked to do."""
    (host.root / "key.tar").write_bytes(archive("rank_key", b"key\n"))
    host.program("docker", f'echo "$@" >> {host.root}/asked\n[ "$1" != cp ] || exec cat {host.root}/key.tar')
    host.docker(
        {
            "/containers/dgx-spark-test-server/json": FOUND,
            "/images/sha256:1111/json": IMAGE,
            "/containers/json": [{"Id": FOUND["Id"], "Names": ["/dgx-spark-test-server"], "Labels": {}}],
        }
    )
    return host


def clear(spark, wanted):
    name = "dgx-spark-test-server"
    return spark.run("clear.py", "apply", stack=STACK, kind="container", name=name, wanted=wanted)


def test_what_is_wanted_stays_and_all_else_goes_with_what_differs(spark):
    done = clear(spark, WANTED)
    assert json.loads(done.stdout) == {"id": "0123456789abcdef", "differs": []}
    assert (spark.root / "asked").read_text().split()[0] == "cp"
    assert "rm" not in (spark.root / "asked").read_text()

    done = clear(spark, {**WANTED, "restart": "always"})
    assert json.loads(done.stdout) == {"id": None, "differs": ["restart"]}
    assert (spark.root / "asked").read_text().splitlines()[-1] == "rm --force --volumes 0123456789abcdef"


def test_ranks_that_run_keep_their_key_and_without_them_there_is_a_new_one(spark):
    done = spark.run("rank_key.py", "apply", stack=STACK, path=RANK_KEY)
    assert done.stdout == "key\n"
    assert (spark.root / "asked").read_text() == f"cp 0123456789abcdef:{RANK_KEY} -\n"
    spark.program("docker", "exit 1")
    assert "OPENSSH PRIVATE KEY" in spark.run("rank_key.py", "apply", stack=STACK, path=RANK_KEY).stdout


ID = "0123456789abcdef"
CREATE = b"POST /v1.47/containers/create?name=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def relayed(tmp_path, *requests):
    """(what reached Docker, what was said in its place)"""
    adopting.note(tmp_path, "spark-1", "ours", {"id": ID, "differs": []})
    adopting.note(tmp_path, "spark-1", "changed", {"id": None, "differs": ["envs"]})
    adopting.note(tmp_path, "spark-2", "theirs", {"id": "fedcba", "differs": []})
    docker, answers = io.BytesIO(), io.BytesIO()
    adopting.relay(io.BytesIO(b"".join(requests)), docker, answers, tmp_path, "spark-1")
    return docker.getvalue(), answers.getvalue()


def test_to_make_what_stays_is_answered_with_its_id_and_its_files_are_taken_for_written(tmp_path):
    start = b"POST /v1.47/containers/0123456789abcdef/start HTTP/1.1\r\n\r\n"
    upload = b"PUT /containers/0123456789abcdef/archive?path=/ HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    asked, said = relayed(tmp_path, CREATE % b"ours", upload, start)
    assert asked == start
    first, second = said.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"201 Created\r\n")
    assert json.loads(first.partition(b"\r\n\r\n")[2]) == {"Id": ID, "Warnings": []}
    assert second.startswith(b"200 OK\r\n")
    assert second.endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        CREATE % b"changed",
        CREATE % b"another",
        CREATE % b"theirs",
        b"POST /v1.47/containers/create HTTP/1.1\r\n\r\n",
        b"GET /v1.47/containers/0123456789abcdef/archive?path=/ HTTP/1.1\r\n\r\n",
        b"PUT /v1.47/containers/fedcba/archive?path=/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n\r\n\r\n1\r\n0;x=y\r\n\r\n",
        b"DELETE /v1.47/containers/0123456789abcdef HTTP/1.1\r\n\r\n",
        b"PUT /containers/fedcba/archive?path=/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"7\r\na\r\n0\r\nb\r\n0\r\n\r\n",
    ],
)
def test_all_else_reaches_docker_to_the_byte_and_in_order(tmp_path, request_):
    last = b"GET /_ping HTTP/1.1\r\n\r\n"
    assert relayed(tmp_path, request_, last) == (request_ + last, b"")


def test_the_ssh_of_such_a_run_is_the_real_one_but_for_connections_to_docker(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "ssh").write_text('#!/bin/sh\ncase "$*" in *dial-stdio) exec cat ;; esac\necho "real: $*"\n')
    (real / "ssh").chmod(0o755)
    base = tmp_path / "it's here"
    base.mkdir()
    adopting.note(base, "spark-1", "ours", {"id": ID, "differs": []})
    env = {**os.environ, **adopting.environment(base, f"{real}:{os.environ['PATH']}", sys.executable)}

    def ssh(*words, stdin=b""):
        return subprocess.run(["ssh", *words], env=env, input=stdin, capture_output=True, check=True).stdout

    assert ssh("-p", "22", "me@host", "echo docker") == b"real: -p 22 me@host echo docker\n"
    ping = b"GET /_ping HTTP/1.1\r\n\r\n"
    words = ["-o", "HostKeyAlias=spark-1", "me@host", "docker system dial-stdio"]
    assert ssh(*words, stdin=ping) == ping
    assert ssh(*words, stdin=CREATE % b"ours").startswith(b"HTTP/1.1 201 Created")
    words[1] = "HostKeyAlias=spark-2"
    assert ssh(*words, stdin=CREATE % b"ours") == CREATE % b"ours"


def test_what_became_of_each_is_told():
    assert told("c", {"id": ID, "differs": []}) == "c was taken over as it runs"
    said = "c was made anew, since it was not as it is wanted in: command, envs"
    assert told("c", {"id": None, "differs": ["command", "envs"]}) == said
