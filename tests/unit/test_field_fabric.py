"""Fabrics as they are found in the field: several addresses, tools that say something else, bonds, VLANs and rings."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.facts.fabric import detect, warnings
from components.facts.rdma import parse_ibdev2netdev
from components.facts.spark import NodeFacts
from components.plan.environment import communication
from components.problems import Severity
from tests.unit.build import FOUR_DOWN, facts, hca, pair, settings, twins

F1_UP = FOUR_DOWN.replace("f1np1 (Down)", "f1np1 (Up)")

USAGE = (
    "ibdev2netdev <options>\n-h, --help                print help message\n-v, --verbose             print more info\n"
)

VERBOSE = (
    "0000:01:00.0 rocep1s0f0 (MT4129 - NVD0000000087) NVIDIA ConnectX-7 fw 28.45.4028 port 1 (DOWN  ) ==> enp1s0f0np0 "
    "(Down)\n"
    "0000:01:00.1 rocep1s0f1 (MT4129 - NVD0000000087) NVIDIA ConnectX-7 fw 28.45.4028 port 1 (ACTIVE) ==> enp1s0f1np1 "
    "(Up)\n"
    "0002:01:00.1 roceP2p1s0f1 (MT4129 - NVD0000000087) NVIDIA ConnectX-7 fw 28.45.4028 port 1 (ACTIVE) ==> "
    "enP2p1s0f1np1 (Up)\n"
)


def link(name: str, *addresses: str, mtu: int = 9000, **more: str) -> dict[str, Any]:
    return {"name": name, "mtu": mtu, "addresses": list(addresses), **more}


def wrongs(known: dict[str, NodeFacts], **config: object) -> list[str]:
    return [one.wrong for one in detect(settings(len(known), **config), known)[1]]


def two_addresses(twin: int = 5) -> dict[str, Any]:
    """Spark 1 with NVIDIA's link-local netplan beside a fixed one: the link-local address came up first."""
    return {
        "links": [
            link("enp1s0f1np1", "169.254.1.7/16", "192.168.177.1/24"),
            link("enP2p1s0f1np1", "192.168.178.1/24"),
        ],
        "rdma": [
            hca("rocep1s0f1", "enp1s0f1np1", {3: "169.254.1.7", 5: "192.168.177.1"}),
            hca("roceP2p1s0f1", "enP2p1s0f1np1", {twin: "192.168.178.1"}),
        ],
    }


def test_of_two_addresses_on_a_port_the_gid_index_is_that_of_the_chosen_one():
    links, problems = detect(settings(), {"spark-1": facts(1, **two_addresses()), "spark-2": facts(2)})
    assert problems == []
    assert (links["spark-1"].address, links["spark-1"].gid_index) == ("192.168.177.1", 5)
    assert (links["spark-2"].address, links["spark-2"].gid_index) == ("192.168.177.2", 3)


def test_a_fixed_subnet_goes_before_link_local_even_where_both_sparks_have_both():
    known = {
        f"spark-{n}": facts(
            n,
            links=[link("enp1s0f1np1", f"169.254.1.{n}/16", f"192.168.177.{n}/24")],
            rdma=[hca("rocep1s0f1", "enp1s0f1np1", {3: f"169.254.1.{n}", 5: f"192.168.177.{n}"})],
            ibdev2netdev="rocep1s0f1 port 1 ==> enp1s0f1np1 (Up)\n",
        )
        for n in (1, 2)
    }
    links, _ = detect(settings(), known)
    assert [(one.address, one.gid_index) for one in links.values()] == [("192.168.177.1", 5), ("192.168.177.2", 5)]


def test_link_local_alone_is_taken_and_told():
    known = {
        f"spark-{n}": facts(
            n,
            links=[link("enp1s0f1np1", f"169.254.1.{n}/16")],
            rdma=[hca("rocep1s0f1", "enp1s0f1np1", {3: f"169.254.1.{n}"})],
            ibdev2netdev="rocep1s0f1 port 1 ==> enp1s0f1np1 (Up)\n",
        )
        for n in (1, 2)
    }
    links, problems = detect(settings(), known)
    assert (problems, links["spark-1"].address, links["spark-1"].gid_index) == ([], "169.254.1.1", 3)
    assert any("169.254.1.1 is link-local" in one.wrong for one in warnings(settings(), known, links))


def test_where_the_twins_indexes_differ_nccl_is_given_the_range_that_holds_the_chosen_addresses_alone():
    # Left to itself NCCL takes the lowest RoCE v2 GID of an IPv4 address: 3, which maps 169.254.1.7.
    links, _ = detect(settings(), {"spark-1": facts(1, **two_addresses(twin=3)), "spark-2": facts(2)})
    environment = communication(links["spark-1"])
    assert "NCCL_IB_GID_INDEX" not in environment
    # 177 is 10110001, 178 is 10110010: the first six bits are the same, 176.
    assert environment["NCCL_IB_ADDR_RANGE"] == "192.168.176.0/22"


def test_where_no_range_tells_the_addresses_apart_the_user_is_told():
    rdma = [
        hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.179.9", 5: "192.168.177.1"}),
        hca("roceP2p1s0f1", "enP2p1s0f1np1", {3: "192.168.178.1"}),
    ]
    links = [
        link("enp1s0f1np1", "192.168.179.9/24", "192.168.177.1/24"),
        link("enP2p1s0f1np1", "192.168.178.1/24"),
    ]
    known = {"spark-1": facts(1, links=links, rdma=rdma), "spark-2": facts(2)}
    found, _ = detect(settings(), known)
    assert "NCCL_IB_ADDR_RANGE" not in communication(found["spark-1"])
    (told,) = [one for one in warnings(settings(), known, found) if one.at == "spark-1"]
    assert told.wrong == "rocep1s0f1 has other addresses (192.168.179.9), of which NCCL may take one"
    assert "fabric.hcas single" in told.fix


def test_an_address_without_a_gid_of_its_own_is_told():
    known = pair(rdma=[hca("rocep1s0f1", "enp1s0f1np1", {3: "10.1.1.1"}), twins(2)[1]])
    links, _ = detect(settings(), known)
    (told,) = [one for one in warnings(settings(), known, links) if one.at == "spark-2"]
    assert told.wrong == "rocep1s0f1 has no RoCE v2 GID for 192.168.177.2"


@pytest.mark.parametrize("output", [USAGE, VERBOSE, "", "sh: 1: ibdev2netdev: not found\n"])
def test_whatever_ibdev2netdev_prints_the_cabled_port_is_found(output):
    links, problems = detect(settings(), pair(ibdev2netdev=output))
    assert problems == []
    assert links["spark-2"].hcas == ("rocep1s0f1", "roceP2p1s0f1")


def test_a_port_whose_rdma_device_is_down_is_not_used_and_told():
    rdma = [hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.177.2"}, active=False), twins(2)[1]]
    links, problems = detect(settings(), {"spark-1": facts(1), "spark-2": facts(2, rdma=rdma)})
    # spark-1's twin is in that subnet too.
    assert problems == []
    assert (links["spark-2"].interface, links["spark-2"].hcas) == ("enP2p1s0f1np1", ("roceP2p1s0f1",))
    assert links["spark-1"].interface == "enP2p1s0f1np1"
    known = {"spark-1": facts(1), "spark-2": facts(2, rdma=rdma)}
    told = [one.wrong for one in warnings(settings(), known, links) if one.at == "spark-2"]
    assert "enp1s0f1np1 is Up, but its RDMA device rocep1s0f1 is DOWN: not used" in told


def test_where_every_rdma_device_is_down_that_is_the_reason():
    rdma = [
        hca("rocep1s0f1", "enp1s0f1np1", {}, active=False),
        hca("roceP2p1s0f1", "enP2p1s0f1np1", {}, active=False),
    ]
    assert wrongs(pair(rdma=rdma)) == [
        "no RDMA port is Up (enP2p1s0f1np1 is Up, but its RDMA device roceP2p1s0f1 is DOWN; "
        "enp1s0f1np1 is Up, but its RDMA device rocep1s0f1 is DOWN)"
    ]


def chosen(address: str, **more: str) -> list[dict[str, Any]]:
    return [
        {"name": "spark-1", "host": "10.0.0.1"},
        {"name": "spark-2", "host": "10.0.0.2", "fabric": {"address": address, **more}},
    ]


def test_an_address_without_a_prefix_has_that_of_its_interface():
    links, problems = detect(settings(nodes=chosen("192.168.177.2")), pair())
    assert problems == []
    assert (links["spark-2"].interface, links["spark-2"].prefix) == ("enp1s0f1np1", 24)


def test_an_address_without_a_prefix_that_no_interface_has_is_refused():
    assert wrongs(pair(), nodes=chosen("192.168.177.9")) == ["no interface has the address 192.168.177.9"]
    assert wrongs(pair(), nodes=chosen("192.168.177.9", interface="enp1s0f1np1")) == [
        "enp1s0f1np1 has not the address 192.168.177.9"
    ]


BONDED = {
    "links": [
        link("enp1s0f1np1", master="bond0"),
        link("enP2p1s0f1np1", master="bond0"),
        link("bond0", "192.168.177.2/24"),
    ],
    "rdma": [
        hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.177.2"}),
        hca("roceP2p1s0f1", "enP2p1s0f1np1", {3: "192.168.177.2"}),
    ],
}


def test_a_bond_that_is_listed_by_its_slaves_is_found():
    links, problems = detect(settings(), pair(**BONDED))
    assert problems == []
    found = links["spark-2"]
    assert (found.interface, found.address, found.mtu) == ("bond0", "192.168.177.2", 9000)
    assert (found.hcas, found.gid_index) == (("rocep1s0f1", "roceP2p1s0f1"), 3)


def test_a_bond_that_is_listed_as_itself_is_found():
    bond = {
        "ibdev2netdev": "mlx5_bond_0 port 1 ==> bond0 (Up)\n",
        "links": BONDED["links"],
        "rdma": [hca("mlx5_bond_0", "enp1s0f1np1", {3: "192.168.177.2"})],
    }
    links, problems = detect(settings(), pair(**bond))
    assert (problems, links["spark-2"].interface, links["spark-2"].hcas) == ([], "bond0", ("mlx5_bond_0",))


def test_a_vlan_on_the_port_has_the_rdma_device_of_its_parent():
    vlan = {
        "links": [
            link("enp1s0f1np1"),
            link("enp1s0f1np1.177", "192.168.177.2/24", mtu=9000, parent="enp1s0f1np1"),
        ],
        "rdma": [
            hca("rocep1s0f1", "enp1s0f1np1", {7: "192.168.177.2"}),
            hca("roceP2p1s0f1", "enP2p1s0f1np1", {}),
        ],
    }
    links, problems = detect(settings(), pair(**vlan))
    assert problems == []
    found = links["spark-2"]
    assert (found.interface, found.hcas, found.gid_index) == ("enp1s0f1np1.177", ("rocep1s0f1",), 7)


def ring() -> dict[str, NodeFacts]:
    """Three Sparks without a switch as in NVIDIA's connect-three-sparks: each cable is a subnet."""
    both_up = FOUR_DOWN.replace("Down", "Up")
    ends = {1: ("0.1", "2.1"), 2: ("0.2", "1.2"), 3: ("1.3", "2.3")}
    return {
        f"spark-{n}": facts(
            n,
            ibdev2netdev=both_up,
            links=[link("enp1s0f0np0", f"192.168.{a}/24"), link("enp1s0f1np1", f"192.168.{b}/24")],
            rdma=[
                hca("rocep1s0f0", "enp1s0f0np0", {3: f"192.168.{a}"}),
                hca("rocep1s0f1", "enp1s0f1np1", {3: f"192.168.{b}"}),
            ],
        )
        for n, (a, b) in ends.items()
    }


def test_a_ring_is_named_as_what_it_is():
    (problem,) = detect(settings(3), ring())[1]
    assert problem.wrong == (
        "the Sparks are cabled in a ring, each pair in a subnet of its own (spark-1 – spark-2 192.168.0.0/24, "
        "spark-1 – spark-3 192.168.2.0/24, spark-2 – spark-3 192.168.1.0/24), which is not supported yet"
    )
    assert problem.fix == "connect all of them to one switch, or make a stack of two that share a cable"


def test_a_chain_is_no_ring():
    known = ring()
    first = known["spark-1"].model_dump()
    first["links"][1]["addresses"] = []
    (problem,) = detect(settings(3), known | {"spark-1": NodeFacts.model_validate(first)})[1]
    assert problem.wrong.startswith("the Sparks are cabled in a chain, ")


def test_three_sparks_with_both_ports_up_on_link_local_addresses_may_be_a_ring():
    known = {
        f"spark-{n}": facts(
            n,
            ibdev2netdev=FOUR_DOWN.replace("Down", "Up"),
            links=[link("enp1s0f0np0", f"169.254.0.{n}/16"), link("enp1s0f1np1", f"169.254.1.{n}/16")],
            rdma=[
                hca("rocep1s0f0", "enp1s0f0np0", {3: f"169.254.0.{n}"}),
                hca("rocep1s0f1", "enp1s0f1np1", {3: f"169.254.1.{n}"}),
            ],
        )
        for n in (1, 2, 3)
    }
    links, problems = detect(settings(3), known)
    assert problems == []
    assert any(
        "a ring without a switch is not supported yet" in one.wrong for one in warnings(settings(3), known, links)
    )


def test_a_default_route_over_wireless_is_never_the_fabric():
    home = {
        "links": [
            link("enP7s7", mtu=1500),
            link("wlP9s9", "192.168.1.42/24", mtu=1500),
            *facts(2).model_dump()["links"][1:],
        ]
    }
    links, problems = detect(settings(), pair(**home))
    assert (problems, links["spark-2"].interface) == ([], "enp1s0f1np1")
    soft = home | {
        "ibdev2netdev": "rxe0 port 1 ==> wlP9s9 (Up)\n",
        "rdma": [hca("rxe0", "wlP9s9", {1: "192.168.1.42"})],
    }
    assert wrongs(pair(**soft)) == ["no RDMA port is Up"]


def test_a_port_that_is_down_for_rdma_but_was_chosen_by_hand_says_why_traffic_is_slow():
    rdma = [hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.177.2"}, active=False), twins(2)[1]]
    known = pair(rdma=rdma)
    made = settings(nodes=chosen("192.168.177.2"))
    links, _ = detect(made, known)
    told = [one for one in warnings(made, known, links) if one.at == "spark-2"]
    assert told[0].wrong == "traffic would not be on RDMA (rocep1s0f1 is DOWN): 10-20 times slower"
    assert told[0].severity is Severity.WARN


PCI = st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", fullmatch=True)
NAME = st.from_regex(r"[a-zA-Z0-9_]{1,15}", fullmatch=True)
WORDS = st.text("abcXYZ 0123-_", max_size=20)


@given(PCI, NAME, WORDS, NAME, st.sampled_from(["ACTIVE", "DOWN  "]), st.sampled_from(["Up", "Down", "NA"]))
def test_lines_of_the_verbose_form_are_read_whatever_the_card_calls_itself(pci, device, words, netdev, rdma, state):
    line = f"{pci} {device} (MT4129 - {words}) {words} fw 28.45.4028 port 1 ({rdma}) ==> {netdev} ({state})"
    assert [(p.device, p.netdev, p.up) for p in parse_ibdev2netdev(line)] == [(device, netdev, state == "Up")]


@given(st.integers(1, 2**32 - 2), st.integers(2, 30))
def test_an_index_always_maps_the_address_that_was_chosen(number, index):
    address = str(ipaddress.IPv4Address(number))
    rdma = [hca("rocep1s0f1", "enp1s0f1np1", {index: address, index + 4: "192.168.177.2"}), twins(2)[1]]
    links, _ = detect(settings(), pair(rdma=rdma))
    indexes = {gid.device: gid.index for gid in links["spark-2"].gids}
    assert indexes["rocep1s0f1"] == (index if address == "192.168.177.2" else index + 4)
