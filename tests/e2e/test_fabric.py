"""The gate before everything that needs the link: fast enough, by measurement, and NCCL really on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import network, sparks
from tests.e2e.conftest import Stack, step

pytestmark = pytest.mark.e2e

PERFTEST = Path(sparks.SOURCES) / "optional" / "ib_write_bw"
TOOLS = "/usr/local/bin/ib_write_bw /usr/local/bin/ib_write_lat"


@pytest.mark.long
def test_a_link_that_is_slower_than_it_says_is_refused_before_anything_starts(simulated, tmp_path):
    pair = simulated[:2]
    stack = Stack(tmp_path, "link", pair, engine="sglang", fabric={"minTcpGbps": 0.3, "minRdmaGbps": 80})
    network.throttle(pair[1], 100)
    try:
        step("a slow link: refused")
        failed = stack.up(check=False)
        assert failed.code != 0
        assert "spark-2 → spark-1: 0.1 Gb/s" in failed.text
        assert (
            "by TCP streams (no perftest on both Sparks: RDMA was not measured): less than 0.3 Gb/s (fabric.minTcpGbps)"
            in failed.text
        )
        assert "a ConnectX-7 that needs its Spark switched off" in failed.text
        assert "server" not in sparks.on(pair[0], "docker ps -a --format '{{.Names}}'")

        step("as fast as it should be: up")
        network.throttle(pair[1], None)
        assert "spark-1 → spark-2" in stack.up().text
        assert stack.complete()["choices"]
        assert stack.is_clean()

        step("with perftest: RDMA is measured")
        # From now on with perftest: 2 × 92.57 Gb/s, and then what a degraded ConnectX-7 carries.
        for spark in pair:
            sparks.on(spark, f"sudo tee {TOOLS} >/dev/null && sudo chmod +x {TOOLS}", stdin=PERFTEST.read_text())
        stack.configure(engine="sglang", fabric={"minTcpGbps": 0.3, "minRdmaGbps": 81})
        assert stack.preview() == {"cluster-fabric-bandwidth": "update"}
        assert "spark-1 → spark-2: 185.1 Gb/s, 1.5 µs by RDMA (perftest)" in stack.up().text

        step("a degraded port: refused, and what serves goes on")
        for spark in pair:
            sparks.on(spark, "echo 6.61 | sudo tee /etc/spark-perftest")
        stack.configure(engine="sglang", fabric={"minTcpGbps": 0.3, "minRdmaGbps": 82})
        failed = stack.up(check=False)
        assert failed.code != 0
        assert "13.2 Gb/s, 1.5 µs by RDMA (perftest): less than 82 Gb/s (fabric.minRdmaGbps)" in failed.text
        assert stack.complete()["choices"], "what serves goes on"
    finally:
        network.throttle(pair[1], None)
        stack.destroy()
        for spark in pair:
            sparks.on(spark, f"sudo rm -f {TOOLS} /etc/spark-perftest")


@pytest.mark.long
def test_a_server_on_sockets_is_told_or_refused(simulated, tmp_path):
    pair = simulated[:2]
    # The checks find RDMA; the engine is told by its environment not to use it.
    sockets = {"env": {"NCCL_IB_DISABLE": "1"}}
    stack = Stack(tmp_path, "sockets", pair, engine="sglang", serving=sockets)
    try:
        step("told")
        text = stack.up().text
        assert "WARNING: NCCL is on sockets and not on RDMA (spark-1, spark-2): 10-20 times slower" in text

        step("with fabric.rdma require: refused")
        stack.configure(engine="sglang", serving={**sockets, "maxModelLen": 4096}, fabric={"rdma": "require"})
        failed = stack.up(check=False)
        assert failed.code != 0
        assert "NCCL is on sockets and not on RDMA" in failed.text
        assert "(fabric.rdma require)" in failed.text
    finally:
        stack.destroy()
