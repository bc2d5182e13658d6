"""Each trait of a simulated Spark is as in the field; what the program makes of it is tested where it belongs."""

from __future__ import annotations

import os
import subprocess

import pytest

from simulator import sparks
from simulator.layout import PASSWORD, USER, Spark
from simulator.shell import SimulatorError
from tests.e2e.conftest import SOME_IMAGE

pytestmark = pytest.mark.e2e

IMAGE = SOME_IMAGE


def test_docker_is_as_new_as_a_sparks_and_builds_with_buildkit(third):
    assert sparks.on(third, "docker version --format '{{.Server.Version}}'").startswith("26.1")
    build = f"echo 'FROM {IMAGE}' | docker build --progress plain --tag derived - 2>&1; docker rmi derived"
    assert "exporting to image" in sparks.on(third, build)
    image = sparks.on(third, f"docker image inspect --format '{{{{.Id}}}}' {IMAGE}").strip()
    said = sparks.on(third, f"echo 'FROM {image}' | docker build - 2>&1", check=False)
    assert "failed to resolve source metadata for docker.io/library/sha256" in said


def test_without_a_runtime_nvidia_the_gpu_comes_by_the_hook_alone(unlike):
    spark = unlike(nvidia_runtime=False)
    show = f"docker run --rm {{}} {IMAGE} nvidia-smi -L 2>&1"
    said = sparks.on(spark, show.format("--runtime nvidia"), check=False)
    assert "unknown or invalid runtime name: nvidia" in said
    assert spark.gpu_uuid in sparks.on(spark, show.format("--gpus all"))


def test_a_flag_of_dockerds_unit_that_daemon_json_has_too_stops_it(unlike):
    spark = unlike(docker_flags=("--log-driver=json-file",))
    setting = """sudo sed -i '1a "log-driver": "local",' /etc/docker/daemon.json"""
    with pytest.raises(SimulatorError, match=r"Job for docker\.service failed because the control process exited"):
        sparks.on(spark, f"{setting}; sudo systemctl restart docker")
    log = sparks.on(spark, "sudo tail -3 /var/log/dockerd.log")
    assert "specified both as a flag and in the configuration file: log-driver" in log


def test_sudo_asks_for_the_password(unlike):
    spark = unlike(sudo_asks=True)
    with pytest.raises(SimulatorError, match="sudo: a password is required"):
        sparks.on(spark, "sudo -n id -un")
    assert sparks.on(spark, "sudo -S id -un", stdin=f"{PASSWORD}\n") == "root\n"
    with pytest.raises(SimulatorError, match="incorrect password"):
        sparks.on(spark, "sudo -S id -un", stdin="wrong\n")


def log_in(spark, tmp_path, password):
    """By password alone, typed by a program."""
    typed = tmp_path / "typed"
    typed.write_text(f"#!/bin/sh\necho {password}\n")
    typed.chmod(0o700)
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PubkeyAuthentication=no"]
    options.append("NumberOfPasswordPrompts=1")
    words = [word for option in options for word in ("-o", option)]
    argv = ["ssh", "-F", "none", *words, "-p", str(spark.traits.ssh_port), f"{USER}@{spark.address}", "id -un"]
    env = {**os.environ, "SSH_ASKPASS": str(typed), "SSH_ASKPASS_REQUIRE": "force"}
    return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def test_sshd_takes_passwords_only_where_it_is_told_to(third, unlike, tmp_path):
    refused = log_in(third, tmp_path, PASSWORD)
    assert "Permission denied (publickey)" in refused.stderr
    spark = unlike(ssh_passwords=True)
    assert log_in(spark, tmp_path, PASSWORD).stdout == f"{USER}\n"
    assert "Permission denied" in log_in(spark, tmp_path, "wrong").stderr


def test_a_spark_answers_at_another_port_than_22(alone, unlike):
    alone.nodes = [unlike(ssh_port=2222)]
    alone.configure()
    assert alone.preview()
    with pytest.raises(SimulatorError, match="port 22: Connection refused"):
        sparks.on(Spark(alone.nodes[0].index), "true")
