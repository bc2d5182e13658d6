"""Bad input and faults: one clear error, exit status not zero, no traceback, nothing lost."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from components.plan.engines import vllm
from ops import pulumi
from simulator import layout, network, sparks
from tests.e2e import api
from tests.e2e.conftest import Stack, restart_docker, step

pytestmark = pytest.mark.e2e


def test_mistakes_in_config_are_reported_together(idle):
    idle.configure(serving={"port": "many"}, colour="red", fabric={"hcas": "three"})
    text = idle.refusal()
    for key in ("dgx-spark:colour: is not a setting", "dgx-spark:serving.port", "dgx-spark:fabric.hcas"):
        assert key in text


def test_a_missing_key_is_named(idle):
    idle("config", "rm", "nodes", "--stack", idle.name)
    assert "missing configuration value 'nodes'" in idle.refusal()


def test_an_unreachable_host(idle, third):
    idle.configure(nodes=[{"name": third.name, "host": "10.77.0.99"}])
    assert "spark-3 (nvidia@10.77.0.99:22): it can't be reached" in idle.refusal()


def test_a_wrong_user(idle):
    idle.configure(ssh={"user": "nobody-here"})
    assert "it does not let nobody-here in with" in idle.refusal()


def test_a_wrong_key(idle, tmp_path):
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    idle.configure(ssh={"privateKeyFile": str(other)})
    assert f"it does not let nvidia in with {other}" in idle.refusal()


def test_a_key_file_that_is_not_there(idle):
    idle.configure(ssh={"privateKeyFile": "/nowhere/id"})
    assert "/nowhere/id" in idle.refusal()


def test_another_machines_host_key(idle, third):
    idle.configure(ssh={"hostKeys": {third.name: sparks.host_key(layout.Spark(1))}})
    assert "its host key is not the one in ssh.hostKeys" in idle.refusal()


def test_no_docker(idle, third):
    sparks.inside(
        third, "sh", "-c", "kill $(cat /var/run/docker.pid); while [ -e /var/run/docker.pid ]; do sleep 0.1; done"
    )
    try:
        assert "spark-3: Docker does not run" in idle.refusal()
    finally:
        restart_docker(third)


def test_a_driver_that_does_not_answer(idle, third):
    sparks.inside(third, "touch", "/etc/spark-gpu-broken")
    try:
        assert "spark-3: nvidia-smi shows no GPU" in idle.refusal()
    finally:
        sparks.inside(third, "rm", "/etc/spark-gpu-broken")


@pytest.fixture(scope="module")
def shared(simulated, tmp_path_factory):
    return Stack(tmp_path_factory.mktemp("two"), "two", simulated[:2])


@pytest.fixture
def two(shared):
    """A stack of the first and second Spark that is never brought up, with the plain settings."""
    shared.configure()
    return shared


@pytest.fixture
def second(simulated):
    """The second Spark, with its cable in afterwards."""
    yield simulated[1]
    network.cable(simulated[1], port=1)


def test_no_port_up_on_one_spark(two, second):
    network.cable(second, port=None)
    assert "spark-2: fabric: no RDMA port is Up" in two.refusal()


def test_no_port_up_on_either(two, simulated):
    for spark in simulated[:2]:
        network.cable(spark, port=None)
    try:
        text = two.refusal()
    finally:
        for spark in simulated[:2]:
            network.cable(spark, port=1)
    assert "spark-1: fabric: no RDMA port is Up" in text
    assert "spark-2: fabric: no RDMA port is Up" in text


def test_sparks_in_different_subnets(two, second):
    network.ip("addr", "flush", "dev", "enp1s0f1np1", namespace=second.name)
    network.ip("addr", "flush", "dev", "enP2p1s0f1np1", namespace=second.name)
    network.ip("addr", "add", "192.168.5.12/24", "dev", "enp1s0f1np1", namespace=second.name)
    assert "the Sparks are in different subnets" in two.refusal()


def test_a_different_mtu(two, second):
    network.cable(second, port=1, mtu=1500)
    assert "the MTU differs: spark-1 9000, spark-2 1500" in two.refusal()


def test_a_slow_link_is_a_warning(two, second):
    network.cable(second, port=1, rate=50)
    assert "warning: spark-2: rocep1s0f1 runs at 50 Gb/s" in two("preview", "--stack", "two").text


def test_parallelism_that_does_not_match_the_gpus(two):
    two.configure(serving={"tensorParallel": 4})
    assert "needs 4 GPUs, and 2 Sparks have 2" in two.refusal()


def test_a_repository_that_does_not_exist(idle):
    idle.configure(model="nobody/nothing")
    assert "model: nobody/nothing does not exist on the hub" in idle.refusal()


def test_a_hub_that_does_not_answer(idle):
    idle.configure(weights={"endpoint": "http://10.77.0.1:9"})
    assert "the model hub does not answer" in idle.refusal()


def test_a_key_for_the_api_is_asked_for_and_shows_nowhere(alone, third):
    step("up with a key")
    alone("config", "set", "--secret", "apiKey", "sk-simulated", "--stack", alone.name)
    alone.up()

    step("asked for, and what else is refused")
    api.refuses(alone, "sk-simulated")

    step("shows nowhere")
    assert "sk-simulated" not in sparks.on(third, "docker inspect dgx-spark-alone-server; ps axww")
    assert "sk-simulated" not in alone("stack", "export", "--stack", alone.name).text
    assert alone.is_clean()


def test_a_disk_too_small_for_the_weights(idle):
    idle.configure(model="simulated/enormous")
    assert "spark-3: disk too small for the weights" in idle.refusal()


def test_a_port_in_use(idle, third):
    listener = subprocess.Popen(
        [*sparks.ssh_argv(third), "python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1"],
        stdin=subprocess.DEVNULL,
    )
    try:
        sparks.wait_for(lambda: "8000" in sparks.on(third, "ss -ltn"), "the listener")
        assert "spark-3: port 8000 is in use by another program" in idle.refusal()
    finally:
        sparks.on(third, "kill $(ss -ltnp | sed -n 's/.*:8000 .*pid=\\([0-9]*\\).*/\\1/p')", check=False)
        listener.wait(timeout=10)


def test_a_server_that_exits_at_start_and_the_next_up_carries_on(alone, third):
    step("a server that exits while it loads")
    with sparks.turned([third], crash="torch.OutOfMemoryError: CUDA out of memory"):
        failed = alone.up(check=False)
    assert failed.code != 0
    assert "torch.OutOfMemoryError: CUDA out of memory" in failed.text

    step("the next up carries on")
    sparks.on(third, "docker rm -f dgx-spark-alone-server")
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
def test_a_server_whose_flag_the_engine_does_not_know(alone):
    alone.configure(serving={"extraArgs": ["--no-such-flag=16"]})
    failed = alone.up(check=False)
    assert failed.code != 0
    assert "vllm: error: unrecognized arguments: --no-such-flag=16" in failed.text


@pytest.mark.long
def test_a_server_that_never_gets_ready(alone, third):
    sparks.set_knobs(third, never_ready=True)
    alone.configure(serving={"startupTimeout": 10})
    failed = alone.up(check=False)
    assert failed.code != 0
    assert "not ready within 10 s (serving.startupTimeout)" in failed.text


@pytest.mark.long
def test_one_tag_with_two_images_is_refused_before_anything_starts(two, second):
    name = vllm.IMAGE
    sparks.on(
        second, f"docker tag {name} kept && printf 'FROM {name}\\nRUN touch /changed\\n' | docker build -q -t {name} -"
    )
    try:
        failed = two.up(check=False)
        assert failed.code != 0
        assert f"{name} is a different image on each Spark" in failed.text
        assert "Traceback" not in failed.text
        assert sparks.on(second, "docker ps -aq") == ""
    finally:
        sparks.on(second, f"docker tag kept {name} && docker image rm kept")
        two.destroy()


def test_ctrl_c_during_up_and_the_next_up_carries_on(alone, third):
    step("Ctrl-C while the server loads")
    with sparks.turned([third], load_seconds=60):
        process = subprocess.Popen(
            [*pulumi.chosen().argv, "up", "--yes", "--skip-preview", "--stack", alone.name],
            env=alone.environment, cwd=alone.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout
        seen = ""
        deadline = time.monotonic() + 60
        while "cluster-server-spark-3 created" not in seen:
            assert time.monotonic() < deadline, seen
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in rest

    step("the next up carries on")
    sparks.on(third, "docker restart -t 1 dgx-spark-alone-server")
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()


def test_the_simulator_is_one_per_machine(simulated, monkeypatch):
    monkeypatch.setattr(sparks, "ROOT", layout.ROOT / "elsewhere")
    with pytest.raises(sparks.SimulatorError, match="Sparks are already simulated from"):
        sparks.claim()


@pytest.mark.long
def test_a_spark_that_is_switched_off_is_named(alone, third):
    step("up")
    alone.up()

    step("switched off: the preview names it")
    sparks.power_off(third)
    try:
        assert "10.77.0.13" in alone.refusal()
    finally:
        sparks.power_on(third)
        sparks.wait_until_up(sparks.existing())

    step("on again: up")
    # With the preview that a person sees first.
    alone("up", "--yes", "--stack", alone.name)
    assert alone.complete()["choices"]
    assert alone.is_clean()
