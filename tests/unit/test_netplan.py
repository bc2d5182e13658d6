"""Addresses by netplan, beside the files of others: netplan adds the lists of all files together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops import setup
from ops.pulumi import CommandError
from tests.unit.build import facts

# NVIDIA/dgx-spark-playbooks, connect-two-sparks: saved as /etc/netplan/40-cx7.yaml.
LINK_LOCAL = """# SPDX-License-Identifier: Apache-2.0
network:
  version: 2
  ethernets:
    enp1s0f0np0:
      link-local: [ ipv4 ]
    enp1s0f1np1:
      link-local: [ ipv4 ]
"""

BY_HAND = """network:
  version: 2
  ethernets:
    enp1s0f1np1:
      addresses:
        - 192.168.100.10/24
      dhcp4: no
"""

HOME = """network:
  version: 2
  ethernets:
    enP7s7: {dhcp4: true}
    enp1s0f1np1: {dhcp4: true}
"""

PORTS = ["enp1s0f0np0", "enp1s0f1np1", "enP2p1s0f0np0", "enP2p1s0f1np1"]
OURS = setup.netplan(["enp1s0f1np1", "enP2p1s0f1np1"], ["192.168.177.11/24", "192.168.178.11/24"])
CX7, FILE = "etc/netplan/40-cx7.yaml", "etc/netplan/60-dgx-spark-fabric.yaml"


@pytest.fixture
def spark(host):
    """netplan notes what it finds, as it would apply it."""
    host.program("netplan", f"cd {host.root}/etc/netplan && ls *.yaml > ../applied 2>/dev/null; exit 0")
    (host.root / "etc/netplan").mkdir(parents=True)
    return host


def run(spark, text: str = OURS, *, write: bool = False, aside: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = spark.json("netplan.py", text=text, ports=PORTS, write=write, aside=list(aside))
    return found


def applied(spark) -> list[str]:
    return (spark.root / "etc/applied").read_text().split()


def other(spark) -> dict[str, Any]:
    (found,) = run(spark)["others"]
    return {**found, "path": found["path"].removeprefix(f"{spark.root}/")}


@pytest.mark.parametrize(
    ("text", "lists", "alone"),
    [
        (LINK_LOCAL, {"enp1s0f1np1": ["link-local"]}, True),
        (BY_HAND, {"enp1s0f1np1": ["addresses"]}, True),
        (HOME, {"enp1s0f1np1": []}, False),
        (LINK_LOCAL + "  wifis:\n    wlP9s9: {}\n", {"enp1s0f1np1": ["link-local"]}, False),
    ],
)
def test_a_file_of_others_is_named_with_the_lists_that_would_be_added_to_ours(spark, text, lists, alone):
    spark.put(CX7, text)
    assert other(spark) == {"path": CX7, "lists": lists, "alone": alone}


def test_a_file_that_names_none_of_our_interfaces_is_nobodys_concern(spark):
    spark.put("etc/netplan/01-network-manager-all.yaml", "network: {version: 2, renderer: NetworkManager}\n")
    spark.put("etc/netplan/50-cloud.yaml", "# not for enp1s0f1np1\nnetwork:\n  ethernets:\n    enP7s7: {dhcp4: true}\n")
    spark.put("etc/netplan/55-empty.yaml", "")
    assert run(spark)["others"] == []


def test_a_file_that_nobody_can_read_is_named_and_stays(spark):
    spark.put(CX7, "network: [unbalanced\n  enp1s0f1np1:\n")
    assert other(spark) == {"path": CX7, "lists": {"enp1s0f1np1": []}, "alone": False}
    spark.before = "import sys\nsys.modules['yaml'] = None\n"
    spark.put(CX7, LINK_LOCAL)
    assert other(spark) == {"path": CX7, "lists": {"enp1s0f1np1": []}, "alone": False}


def test_what_was_moved_aside_is_not_read_by_netplan_and_comes_back_with_undo(spark):
    spark.put(CX7, LINK_LOCAL).chmod(0o600)
    run(spark, write=True, aside=(f"{spark.root}/{CX7}",))
    assert applied(spark) == ["60-dgx-spark-fabric.yaml"]
    assert [path.endswith("40-cx7.yaml") for path in run(spark)["aside"]] == [True]
    run(spark, "", write=True)
    assert applied(spark) == ["40-cx7.yaml"]
    assert (spark.root / CX7).read_text() == LINK_LOCAL
    assert (spark.root / CX7).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (spark.root / "etc/netplan").iterdir()) == ["40-cx7.yaml"]


def test_a_file_that_somebody_made_anew_since_is_not_overwritten_by_undo(spark):
    spark.put(CX7, LINK_LOCAL)
    run(spark, write=True, aside=(f"{spark.root}/{CX7}",))
    spark.put(CX7, BY_HAND)
    run(spark, "", write=True)
    assert (spark.root / CX7).read_text() == BY_HAND


def test_where_netplan_refuses_everything_is_as_it_was(spark):
    spark.put(CX7, LINK_LOCAL)
    spark.put(FILE, "# former\n")
    spark.program("netplan", "echo 'Error in network definition' >&2; exit 78")
    done = spark.run("netplan.py", "apply", text=OURS, ports=PORTS, write=True, aside=[f"{spark.root}/{CX7}"])
    assert "Error in network definition" in done.stderr
    assert (spark.root / CX7).read_text() == LINK_LOCAL
    assert (spark.root / FILE).read_text() == "# former\n"


# What the command asks


class Sparks:
    """A stack's Sparks; `netplan.py` answers as told and notes what it was given."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.written: dict[str, Any] = {}

    def __call__(self, _of: object, given: dict[str, Any], _sudo: object, *, write: bool) -> dict[str, Any]:
        if write:
            self.written = given
        return self.answers


@pytest.fixture
def network(monkeypatch):
    """Makes `setup_network` on one Spark whose netplan script answers as told."""

    def make(answer, replies, *, undo=False):
        sparks = Sparks({"spark-1": {"before": "", "others": [], "aside": [], **answer}})
        monkeypatch.setattr(setup, "_netplan", sparks)
        monkeypatch.setattr(setup, "look", lambda *_: ({"spark-1": facts(1)}, []))
        asked = []

        def confirm(question):
            asked.append(question)
            return replies[len(asked) - 1]

        class Stack:
            stack = "test"
            settings = type("S", (), {"nodes": [type("N", (), {"name": "spark-1"})]})

        setup.setup_network(Stack(), confirm, undo=undo)
        return asked, sparks.written

    return make


CX7_FOUND = {"path": "/etc/netplan/40-cx7.yaml", "lists": {"enp1s0f1np1": ["link-local"]}, "alone": True}


def test_nvidias_file_is_said_and_moved_aside_after_a_yes_of_its_own(network, capsys):
    asked, written = network({"others": [CX7_FOUND]}, [True, True])
    out = capsys.readouterr().out
    assert "spark-1: /etc/netplan/40-cx7.yaml names enp1s0f1np1 too, and netplan adds its link-local to ours" in out
    assert asked[1] == "Move /etc/netplan/40-cx7.yaml aside on spark-1? --undo puts it back."
    assert written["spark-1"]["aside"] == ["/etc/netplan/40-cx7.yaml"]


def test_it_stays_where_the_answer_is_no(network):
    _, written = network({"others": [CX7_FOUND]}, [True, False])
    assert written["spark-1"]["aside"] == []


def test_it_is_moved_aside_also_where_our_own_file_is_there_already(network):
    asked, written = network({"before": OURS.strip(), "others": [CX7_FOUND]}, [True])
    assert len(asked) == 1
    assert written["spark-1"]["aside"] == ["/etc/netplan/40-cx7.yaml"]


def test_a_file_with_other_interfaces_in_it_is_left_to_its_owner(network, capsys):
    home = {"path": "/etc/netplan/50.yaml", "lists": {"enp1s0f1np1": []}, "alone": False}
    asked, written = network({"others": [home]}, [True])
    assert "take it out there by hand" in capsys.readouterr().out
    assert len(asked) == 1
    assert written["spark-1"]["aside"] == []


def test_undo_has_something_to_do_where_only_a_file_was_moved_aside(network, capsys):
    asked, written = network({"aside": ["/etc/netplan/40-cx7.yaml"]}, [True], undo=True)
    assert "spark-1: /etc/netplan/40-cx7.yaml comes back" in capsys.readouterr().out
    assert len(asked) == 1
    assert written["spark-1"]["text"] == ""
    network({}, [], undo=True)
    assert "nothing to change" in capsys.readouterr().out


def test_a_spark_without_a_cable_is_named():
    down = facts(1, ibdev2netdev="rocep1s0f1 port 1 ==> enp1s0f1np1 (Down)\n")
    with pytest.raises(CommandError, match="spark-1: no QSFP port is up"):
        setup.cabled(down, "spark-1")


def test_our_file_is_what_netplan_reads():
    yaml = pytest.importorskip("yaml")
    made = yaml.safe_load(OURS)["network"]["ethernets"]
    assert json.loads(json.dumps(made["enP2p1s0f1np1"])) == {
        "dhcp4": False, "dhcp6": False, "mtu": 9000, "addresses": ["192.168.178.11/24"],
    }  # fmt: skip
