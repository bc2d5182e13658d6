"""What NCCL says of its network, in its own logs (2.28.9, recorded on GPUs without InfiniBand) and in others' words."""

from pathlib import Path

import pytest
from hypothesis import given, strategies

from components.scripts.shared.nccl_log import NO_DEVICE, NO_PLUGIN, networks

LOGS = Path(__file__).parent / "nccl"

IB = "NET/IB : Using [0]rocep1s0f1:1/RoCE [1]roceP2p1s0f1:1/RoCE [RO]; OOB enp1s0f1np1:192.168.177.11<0>"


def said(*texts, host="spark-1", pid=585, before=""):
    return [f"{before}{host}:{pid}:{pid} [0] NCCL INFO {text}" for text in texts]


def rank(host="spark-1", network="", proven=False, finding=""):
    return {"host": host, "network": network, "proven": proven, "finding": finding}


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("default", rank(network="Socket", finding=NO_DEVICE)),
        ("ibdisabled", rank(network="Socket", proven=True)),
        ("netib", rank(finding=NO_PLUGIN)),
    ],
)
def test_a_list_of_devices_is_no_proof_of_their_use(log, expected):
    assert networks((LOGS / f"{log}.log").read_text().splitlines()) == [expected]


def test_a_rank_that_found_no_interface_has_no_network():
    assert networks((LOGS / "badif.log").read_text().splitlines()) == [rank()]


def test_devices_alone_are_not_yet_in_use():
    assert networks(said(IB)) == [rank()]


def test_the_last_communicator_counts():
    assert networks(said(IB, "Using network IB")) == [rank(network="IB")]
    assert networks(said("Using network IB", "Using network Socket")) == [rank(network="Socket")]
    assert networks(said("Using network Socket", "Using network IB")) == [rank(network="IB")]


def test_a_channel_that_was_set_up_is_the_proof():
    by_ib = "Channel 00/0 : 1[0] -> 0[0] [receive] via NET/IB/0(0)/GDRDMA"
    by_socket = "Channel 00/0 : 1[0] -> 0[0] [send] via NET/Socket/0"
    assert networks(said("Using network IB", by_ib)) == [rank(network="IB", proven=True)]
    assert networks(said("Using network IB", by_ib, by_socket)) == [rank(network="Socket", proven=True)]
    plugin = "Channel 00/0 : 1[0] -> 0[0] [receive] via NET/IBext_v10/1"
    assert networks(said(plugin)) == [rank(network="IBext_v10", proven=True)]


def test_ranks_within_a_spark_use_no_network():
    assert networks(said("Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM")) == [rank()]


def test_each_rank_of_a_log_that_carries_all_is_told_apart():
    ray = "(RayWorkerProc pid=71, ip=192.168.177.12) "
    lines = [
        *said("Using network IB"),
        *said("NET/IB : No device found.", "Using network Socket", host="spark-2", pid=71, before=ray),
    ]
    assert networks(lines) == [rank(network="IB"), rank("spark-2", "Socket", finding=NO_DEVICE)]


def test_a_rank_that_was_started_again_is_what_it_says_now():
    lines = [*said("NET/IB : No device found.", "Using network Socket"), *said("Using network IB", pid=900)]
    assert networks(lines) == [rank(network="IB")]


def test_infiniband_that_was_switched_off_is_no_finding():
    off = said("NCCL_IB_DISABLE set by environment to 1.", "Failed to initialize NET plugin IB", "Using network Socket")
    assert networks(off) == [rank(network="Socket")]


@given(strategies.lists(strategies.text()))
def test_no_log_of_anything_else_speaks_of_a_network(lines):
    assert networks([line for line in lines if "NCCL" not in line]) == []
