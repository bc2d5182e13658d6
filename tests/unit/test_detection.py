"""Which port is the fabric: the cases of facts.md D1, and those that peers' users fell over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.facts.fabric import NodeLink, detect, warnings
from components.facts.rdma import Port, parse_ibdev2netdev, physical
from components.plan.environment import communication
from components.problems import Problem, Severity
from tests.unit.build import FOUR_DOWN, hca, pair, settings, twins

BOTH_UP = FOUR_DOWN.replace("Down", "Up")
F1_UP = FOUR_DOWN.replace("f1np1 (Down)", "f1np1 (Up)")
F0_UP = FOUR_DOWN.replace("f0np0 (Down)", "f0np0 (Up)")
NVIDIA_ORDER = "\n".join(reversed(F1_UP.strip().splitlines()))


def link(*addresses: tuple[str, str], mtu: int = 9000) -> list[dict[str, object]]:
    return [{"name": name, "mtu": mtu, "addresses": [address]} for name, address in addresses]


def detected(second: dict[str, object] | None = None, **config: object) -> dict[str, NodeLink]:
    links, problems = detect(settings(**config), pair(**(second or {})))
    assert problems == []
    return links


def refused(second: dict[str, object], **config: object) -> list[str]:
    return [problem.wrong for problem in detect(settings(**config), pair(**second))[1]]


@pytest.mark.parametrize("output", [F1_UP, NVIDIA_ORDER, F1_UP.replace("\n", "\r\n"), F1_UP.replace("\n", "  \n")])
def test_both_twins_of_the_cabled_port_whatever_the_order(output):
    found = detected({"ibdev2netdev": output})["spark-2"]
    assert (found.interface, found.address, found.hcas) == (
        "enp1s0f1np1",
        "192.168.177.2",
        ("rocep1s0f1", "roceP2p1s0f1"),
    )
    assert found.gid_index == 3


def test_one_hca_on_request():
    assert detected(fabric={"hcas": "single"})["spark-2"].hcas == ("rocep1s0f1",)


def test_generic_device_names_are_taken_as_they_are():
    generic = {
        "ibdev2netdev": "mlx5_0 port 1 ==> enp1s0f1np1 (Up)\n",
        "rdma": [hca("mlx5_0", "enp1s0f1np1", {3: "192.168.177.2"})],
    }
    assert detected(generic)["spark-2"].hcas == ("mlx5_0",)


def test_all_ports_down():
    assert refused({"ibdev2netdev": FOUR_DOWN}) == ["no RDMA port is Up"]


def test_the_other_port_cabled():
    other = {
        "ibdev2netdev": F0_UP,
        "links": link(("enp1s0f0np0", "192.168.177.2/24"), ("enP2p1s0f0np0", "192.168.178.2/24")),
        "rdma": [
            hca("rocep1s0f0", "enp1s0f0np0", {5: "192.168.177.2"}),
            hca("roceP2p1s0f0", "enP2p1s0f0np0", {5: "192.168.178.2"}),
        ],
    }
    found = detected(other)["spark-2"]
    assert (found.interface, found.hcas, found.gid_index) == ("enp1s0f0np0", ("rocep1s0f0", "roceP2p1s0f0"), 5)


def test_of_two_cabled_ports_the_one_in_the_common_subnet_is_taken_and_the_other_left_alone():
    second = {
        "ibdev2netdev": BOTH_UP,
        "links": link(
            ("enp1s0f0np0", "10.9.9.2/24"), ("enp1s0f1np1", "192.168.177.2/24"), ("enP2p1s0f1np1", "192.168.178.2/24")
        ),
        "rdma": [
            hca("rocep1s0f0", "enp1s0f0np0", {3: "10.9.9.2"}),
            hca("roceP2p1s0f0", "enP2p1s0f0np0", {}),
            *twins(2),
        ],
    }
    found = detected(second)["spark-2"]
    assert (found.interface, found.hcas) == ("enp1s0f1np1", ("rocep1s0f1", "roceP2p1s0f1"))
    told = list(warnings(settings(), pair(**second), detected(second)))
    assert any("enP2p1s0f0np0, enp1s0f0np0 is Up too and not used" in one.wrong for one in told)


def test_only_the_second_twin_up():
    second = {
        "ibdev2netdev": FOUR_DOWN.replace("enP2p1s0f1np1 (Down)", "enP2p1s0f1np1 (Up)"),
        "links": link(("enP2p1s0f1np1", "192.168.177.2/24")),
    }
    assert detected(second)["spark-2"].interface == "enP2p1s0f1np1"


def test_a_twin_without_an_address_has_no_gid_to_be_reached_by_and_is_left_out():
    second = {
        "links": link(("enP2p1s0f1np1", "192.168.177.2/24")),
        "rdma": [
            hca("rocep1s0f1", "enp1s0f1np1", {}),
            hca("roceP2p1s0f1", "enP2p1s0f1np1", {3: "192.168.177.2"}),
        ],
    }
    found = detected(second)["spark-2"]
    assert (found.interface, found.hcas, found.gid_index) == ("enP2p1s0f1np1", ("roceP2p1s0f1",), 3)
    (told,) = [one for one in warnings(settings(), pair(**second), detected(second)) if one.at == "spark-2"]
    assert told.wrong == "rocep1s0f1 carries nothing: enp1s0f1np1 has no IPv4 address"
    assert "./spark setup-network" in told.fix


def test_no_ipv4_address_on_any_port_that_is_up():
    wrong = refused({"links": link(("enP7s7", "10.0.0.2/24"))})
    assert wrong == ["no IPv4 address on an RDMA port that is Up (enP2p1s0f1np1, enp1s0f1np1)"]


def test_of_two_addresses_on_one_device_the_one_in_the_common_subnet():
    two = [{"name": "enp1s0f1np1", "mtu": 9000, "addresses": ["169.254.3.4/16", "192.168.177.2/24"]}]
    assert detected({"links": two})["spark-2"].address == "192.168.177.2"


def test_without_the_tool_sysfs_tells():
    assert detected({"ibdev2netdev": ""})["spark-2"].hcas == ("rocep1s0f1", "roceP2p1s0f1")


def test_the_10g_port_and_wireless_are_never_taken():
    wrong = refused({"ibdev2netdev": "mlx5_0 port 1 ==> enP7s7 (Up)\nmlx5_1 port 1 ==> wlP9s9 (Up)\n"})
    assert wrong == ["no RDMA port is Up"]


def test_different_subnets_are_refused_naming_each_spark():
    (wrong,) = refused({"links": link(("enp1s0f1np1", "192.168.5.2/24"))})
    assert "spark-1 192.168.177.1/24 on enp1s0f1np1, spark-2 192.168.5.2/24" in wrong


def test_different_mtus_are_refused():
    assert refused({"links": link(("enp1s0f1np1", "192.168.177.2/24"), mtu=1500)}) == [
        "the MTU differs: spark-1 9000, spark-2 1500"
    ]


def test_gid_indexes_that_differ_between_the_twins_are_left_to_nccl():
    found = detected({"rdma": twins(2, first=3, second=5)})["spark-2"]
    assert found.gid_index is None
    assert "NCCL_IB_GID_INDEX" not in communication(found)
    assert communication(found)["NCCL_IB_ROCE_VERSION_NUM"] == "2"


def test_every_detected_value_can_be_overridden():
    nodes = [
        {"name": "spark-1", "host": "10.0.0.1"},
        {
            "name": "spark-2",
            "host": "10.0.0.2",
            "fabric": {"interface": "bond0", "address": "192.168.177.9/24", "hcas": ["mlx5_bond_0"], "gidIndex": 7},
        },
    ]
    links = [*pair()["spark-2"].model_dump()["links"], {"name": "bond0", "mtu": 9000, "addresses": []}]
    found = detected({"ibdev2netdev": FOUR_DOWN, "links": links}, nodes=nodes)["spark-2"]
    assert found == NodeLink("spark-2", "bond0", "192.168.177.9", 24, ("mlx5_bond_0",), 7, 9000)


def test_traffic_that_would_not_be_on_rdma_is_warned_of():
    nodes = [{"name": f"spark-{n}", "host": f"10.0.0.{n}", "fabric": {"interface": "enP7s7"}} for n in (1, 2)]
    made = settings(nodes=nodes)
    links, _ = detect(made, pair())
    told = list(warnings(made, pair(), links))
    assert (told[0].at, told[0].severity) == ("spark-1", Severity.WARN)
    assert told[0].wrong == "traffic would not be on RDMA (enP7s7 is no RDMA port): 10-20 times slower"
    assert communication(links["spark-1"])["NCCL_IB_DISABLE"] == "1"
    strict = settings(nodes=nodes, fabric={"rdma": "require"})
    assert {one.severity for one in warnings(strict, pair(), links) if "RDMA" in one.wrong} == {Severity.REFUSE}


def test_a_slow_link_is_warned_of():
    slow = {
        "rdma": [
            hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.177.2"}, rate="100 Gb/sec (2X HDR)"),
            hca("roceP2p1s0f1", "enP2p1s0f1np1", {3: "192.168.178.2"}),
        ]
    }
    told = list(warnings(settings(), pair(**slow), detected(slow)))
    assert told == [Problem("spark-2", "rocep1s0f1 runs at 100 Gb/s, not 200", "check the cable", Severity.WARN)]


def test_a_healthy_pair_gives_no_warning():
    assert list(warnings(settings(), pair(), detected())) == []


NAME = st.from_regex(r"[a-zA-Z0-9_]{1,15}", fullmatch=True)


@given(st.lists(st.tuples(NAME, NAME, st.booleans())), st.sampled_from(["\n", "\r\n", "  \n"]))
def test_every_printed_port_is_read(rows, end):
    text = end.join(f"{device} port 1 ==> {netdev} ({'Up' if up else 'Down'})" for device, netdev, up in rows)
    assert parse_ibdev2netdev(text) == [Port(*row) for row in rows]


@given(st.text())
def test_no_output_makes_the_parser_fail(text):
    assert all(isinstance(port, Port) for port in parse_ibdev2netdev(text))


def test_twins_share_their_physical_port():
    assert physical("enP2p1s0f1np1") == physical("enp1s0f1np1") != physical("enp1s0f0np0")


def test_twins_in_one_subnet_are_told():
    links = [
        {"name": "enp1s0f1np1", "mtu": 9000, "addresses": ["192.168.177.2/24"]},
        {"name": "enP2p1s0f1np1", "mtu": 9000, "addresses": ["192.168.177.3/24"]},
    ]
    rdma = [
        hca("rocep1s0f1", "enp1s0f1np1", {3: "192.168.177.2"}),
        hca("roceP2p1s0f1", "enP2p1s0f1np1", {3: "192.168.177.3"}),
    ]
    both = pair(links=links, rdma=rdma)
    found = list(warnings(settings(), both, detect(settings(), both)[0]))
    assert [one.at for one in found if "both twins are in 192.168.177.0/24" in one.wrong] == ["spark-2"]
