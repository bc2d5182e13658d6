"""scripts/fabric.py: is the link, at the moment of the change, what was planned?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.build import mapped
from tests.unit.home import record

ADDRESS = "3: enp1s0f1np1    inet 192.168.177.1/24 brd 192.168.177.255 scope global enp1s0f1np1"
GIDS = [{"device": "rocep1s0f1", "index": 5, "address": "192.168.177.1"}]


@pytest.fixture
def spark(host):
    """Two addresses on the port, and a peer that answers to everything; `ping` is in no usual place."""
    table = {3: (mapped("169.254.1.7"), "RoCE v2"), 4: (mapped("192.168.177.1"), "IB/RoCE v1")}
    host.infiniband("rocep1s0f1", "enp1s0f1np1", {**table, 5: (mapped("192.168.177.1"), "RoCE v2")})
    host.put("sys/class/net/enp1s0f1np1/mtu", "9000\n")
    host.prints("ip", ADDRESS)
    host.program("ping", "exit 0")
    return host


def confirm(spark, gids: list[dict[str, Any]] = GIDS, index: int | None = 5) -> str:
    link = {
        "node": "spark-1", "interface": "enp1s0f1np1", "address": "192.168.177.1", "prefix": 24,
        "hcas": ["rocep1s0f1"], "gid_index": index, "gids": gids, "mtu": 9000,
    }  # fmt: skip
    return spark.run("fabric.py", "apply", link=link, peers=["192.168.177.2"], record=record("fabric")).stderr.strip()


def test_a_link_as_planned_is_confirmed(spark):
    assert confirm(spark) == "enp1s0f1np1 reaches 192.168.177.2 with MTU 9000"


def test_a_gid_of_the_right_type_and_another_address_is_not_what_was_planned(spark):
    moved = [{**GIDS[0], "index": 3}]
    assert confirm(spark, moved, 3).endswith("GID 3 of rocep1s0f1 maps 169.254.1.7, not 192.168.177.1")


def test_each_device_has_its_own_index(spark):
    assert confirm(spark, [{**GIDS[0], "index": 4}], None).endswith("GID 4 of rocep1s0f1 is IB/RoCE v1, not RoCE v2")


def test_an_index_that_was_set_by_hand_is_held_against_its_type_alone(spark):
    assert "reaches" in confirm(spark, [], 3)
    assert confirm(spark, [], 7).endswith("GID 7 of rocep1s0f1 is empty, not RoCE v2")


def test_ping_is_found_wherever_it_is(spark):
    (spark.programs / "ping").unlink()
    spark.program("ip", f"echo '{ADDRESS}'")
    spark.shadow("ping")
    assert confirm(spark) == "no program `ping`: sudo apt install iputils-ping"
