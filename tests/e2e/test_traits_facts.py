"""Sparks as they are met in the field: what a preview says of them, and that it holds when it comes up."""

from __future__ import annotations

import json
import re

import pytest

from ops import setup
from ops.project import Project
from ops.stack import of
from simulator import network, sparks
from simulator.layout import USER
from tests.e2e.conftest import Stack, step

pytestmark = pytest.mark.e2e

CACHE = f"/home/{USER}/.cache/huggingface"


@pytest.fixture
def pair(simulated, tmp_path):
    """A stack of the first two Sparks, which are put right again afterwards."""
    stack = Stack(tmp_path, "pair", simulated[:2], engine="sglang")
    yield stack
    stack.destroy()
    for spark in stack.nodes:
        network.cable(spark, port=1)


@pytest.mark.long
def test_of_two_addresses_on_a_port_the_fixed_one_and_its_own_gid_are_used(pair):
    first = pair.nodes[0]
    # The link-local address came up first: NCCL by itself would take its GID.
    network.also(first, "169.254.1.7", gid_index=3, chosen_index=5)
    pair.up()
    env = dict(
        one.split("=", 1)
        for one in json.loads(
            sparks.on(first, f"docker inspect --format '{{{{json .Config.Env}}}}' {pair.container('server')}")
        )
    )
    # The twins' indexes differ (5 and 3): a range that holds 192.168.177.11 and 192.168.178.11 and no 169.254.
    assert env["NCCL_IB_ADDR_RANGE"] == "192.168.176.0/22"
    assert "NCCL_IB_GID_INDEX" not in env
    assert pair.complete()["choices"]
    assert pair.is_clean()


def test_a_port_whose_rdma_device_is_down_is_not_used_and_said_at_preview(pair):
    network.rdma_down(pair.nodes[1], twin=0)
    text = pair("preview", "--stack", pair.name).text
    assert "spark-2: enp1s0f1np1 is Up, but its RDMA device rocep1s0f1 is DOWN: not used" in text
    network.rdma_down(pair.nodes[1], twin=1)
    assert "no RDMA port is Up (enP2p1s0f1np1 is Up, but its RDMA device roceP2p1s0f1 is DOWN" in pair.refusal()


@pytest.mark.long
def test_a_spark_on_wireless_without_a_cable_to_the_house_is_like_any_other(pair):
    network.wireless(pair.nodes[1], True)
    try:
        assert "default via 10.77.0.1 dev wlP9s9" in sparks.on(pair.nodes[1], "ip route")
        pair.up()
        assert pair.complete()["choices"]
        assert pair.is_clean()
        pair.destroy()
    finally:
        network.wireless(pair.nodes[1], False)


def test_a_kernel_that_keeps_memory_from_rdma_is_said_at_preview(pair):
    pair.configure(engine="sglang", fabric={"minRdmaGbps": 80})
    meminfo = pair.nodes[1].home / "meminfo"
    before = meminfo.read_text()
    meminfo.write_text(before + "CmaTotal:              0 kB\nCmaFree:          940604 kB\n")
    try:
        text = pair("preview", "--stack", pair.name).text
        assert "keeps 0.9 GiB from RDMA (CmaFree is more than CmaTotal)" in text
        assert "kho=off" in text
        assert "perftest is missing: RDMA will not be measured, only TCP" in text
    finally:
        meminfo.write_text(before)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "couldn't communicate with the NVIDIA driver"),
        (18, "Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.95"),
    ],
)
def test_an_nvidia_smi_that_fails_in_words_is_quoted(alone, unlike, code, words):
    unlike(nvidia_smi_exit=code)
    refusal = " ".join(alone.refusal().split())
    assert "nvidia-smi shows no GPU, but: " in refusal
    assert words in refusal


def test_of_two_gpus_one_is_named_and_served_on(alone, unlike):
    spark = unlike(gpus=2)
    refusal = alone.refusal()
    assert "has 2 GPUs (NVIDIA GB10 " in refusal
    command = re.search(r"pulumi config set --path 'nodes\[0\]\.gpu' (\S+)", refusal)
    assert command
    assert command[1] == spark.gpu_uuid
    alone("config", "set", "--path", "nodes[0].gpu", command[1], "--stack", alone.name)
    assert alone.preview()


@pytest.mark.long
def test_without_a_runtime_the_hook_is_enough_and_without_either_the_remedy_is_said(alone, unlike):
    step("by the hook")
    alone.nodes = [unlike(nvidia_runtime=False)]
    alone.serves_and_goes()

    step("by neither")
    alone.nodes = [unlike(nvidia_runtime=False, nvidia_hook=False)]
    refusal = alone.refusal()
    assert "Docker has no way to the GPU: no runtime `nvidia`, no hook and no CDI device" in refusal
    assert "sudo apt install nvidia-container-toolkit" in refusal


@pytest.mark.parametrize("folder", ["hub", "hub/.locks", "hub/models--openai--gpt-oss-20b"])
def test_what_an_older_container_left_to_root_is_named_and_mended_by_the_one_command(alone, third, folder):
    alone.configure(model="gpt-oss-20b")
    sparks.on(third, f"rm -rf {CACHE} && mkdir -p {CACHE} && sudo install -d -o root {CACHE}/{folder}")
    sparks.on(third, f"sudo chown {USER} {CACHE}/hub" if folder != "hub" else "true")
    try:
        step("named")
        refusal = alone.refusal()
        assert f"{USER} can't write {CACHE}/{folder} (of root)" in refusal
        command = re.search(r"on it: (sudo chown -R .+)", refusal)
        assert command

        step("mended")
        sparks.on(third, command[1])
        assert alone.preview()
    finally:
        sparks.on(third, f"sudo rm -rf {CACHE}")


CX7 = """network:
  version: 2
  ethernets:
    enp1s0f0np0:
      link-local: [ ipv4 ]
    enp1s0f1np1:
      link-local: [ ipv4 ]
"""


def test_nvidias_own_netplan_file_is_moved_aside_and_comes_back(alone, third, capsys):
    where = of(Project(alone.folder, alone.environment), alone.name)
    own = ("192.168.187.0/24", "192.168.188.0/24")
    sparks.on(third, "sudo tee /etc/netplan/40-cx7.yaml && sudo chmod 600 /etc/netplan/40-cx7.yaml", stdin=CX7)
    sparks.on(third, "sudo netplan apply")
    former = sparks.on(third, "ip -o -4 addr show enp1s0f1np1")
    assert "169.254.77." in former
    try:
        # Beside ours, netplan gives the port both.
        setup.setup_network(where, lambda question: "Move" not in question, subnets=own)
        assert "netplan adds its link-local to ours" in capsys.readouterr().out
        assert "169.254.77." in sparks.on(third, "ip -o -4 addr show enp1s0f1np1")
        setup.setup_network(where, lambda _question: True, subnets=own)
        now = sparks.on(third, "ip -o -4 addr show enp1s0f1np1")
        assert "169.254.77." not in now
        assert "192.168.187.11/24" in now
        setup.setup_network(where, lambda _question: True, undo=True)
        assert sparks.on(third, "ip -o -4 addr show enp1s0f1np1") == former
        assert "40-cx7.yaml" in sparks.on(third, "ls /etc/netplan")
    finally:
        sparks.on(third, "sudo rm -f /etc/netplan/40-cx7.yaml && sudo netplan apply")
