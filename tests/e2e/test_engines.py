"""SGLang and vLLM without Ray: one rank per Spark, which live and die together; and switching between engines."""

from __future__ import annotations

import pytest

from simulator import sparks
from tests.e2e.conftest import Stack, container_id, left_behind

pytestmark = pytest.mark.e2e

VARIANTS = {"sglang": {"engine": "sglang"}, "vllm-mp": {"serving": {"executor": "mp"}}}
RANKS = ("cluster-server-spark-1", "cluster-server-spark-2")
READY = "cluster-endpoint-ready"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_pair_through_its_life(name, simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, name, pair, **VARIANTS[name])
    server = stack.container("server")
    try:
        stack.up()
        assert stack.complete()["choices"]
        logs = [sparks.on(spark, f"docker logs {server} 2>&1") for spark in pair]
        assert all(f"rank {rank} NCCL INFO NET/IB" in log for rank, log in enumerate(logs))
        assert stack.is_clean()

        stack.configure(**{**VARIANTS[name], "model": "gpt-oss-20b"})
        weights = {"cluster-weights-spark-1", "cluster-weights-spark-2"}
        assert set(stack.preview()) == {*weights, *RANKS, READY}
        stack.up()
        assert stack.outputs()["model"] == "openai/gpt-oss-20b"
        assert stack.complete()["choices"]

        head = container_id(pair[0], server)
        sparks.on(pair[1], f"docker kill {server}")
        assert stack.preview() == dict.fromkeys([*RANKS, READY], "replace")
        text = stack.up().text
        assert text.index("cluster-server-spark-2 deleted original") < text.index(
            "cluster-server-spark-1 deleted original"
        )
        assert container_id(pair[0], server) != head
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


def test_sglang_on_one_spark_with_a_key(alone, third):
    import requests

    alone.configure(engine="sglang")
    alone("config", "set", "--secret", "apiKey", "sk-simulated", "--stack", alone.name)
    alone.up()
    base = alone.outputs()["api_base"]
    assert base.endswith(":30000/v1")
    assert requests.get(f"{base}/models", timeout=5).status_code == 401
    headers = {"Authorization": "Bearer sk-simulated"}
    assert requests.get(f"{base}/models", headers=headers, timeout=5).status_code == 200
    assert "sk-simulated" not in sparks.on(third, "docker inspect dgx-spark-alone-server; ps axww")
    assert alone.is_clean()


def test_an_engine_is_switched_within_a_stack(alone):
    alone.up()
    assert alone.outputs()["engine"] == "vllm"
    alone.configure(engine="sglang")
    assert alone.preview() == {
        "cluster-image-spark-3": "replace",
        "cluster-server-spark-3": "replace",
        "cluster-endpoint-ready": "replace",
    } | ({"cluster-weights-spark-3": "update"})
    alone.up()
    assert alone.outputs()["engine"] == "sglang"
    assert alone.complete()["choices"]
    alone.configure(engine="vllm")
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()


def test_a_rank_that_never_joins_is_named(simulated, tmp_path):
    stack = Stack(tmp_path, "torn", simulated[:2], engine="sglang", serving={"startupTimeout": 15})
    sparks.inside(simulated[0], "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "50000", "-j", "DROP")
    try:
        failed = stack.up(check=False)
        assert failed.code != 0
        assert "waiting for ranks [1] to join at 192.168.177.11:50000" in failed.text
    finally:
        sparks.inside(simulated[0], "iptables", "-D", "INPUT", "-p", "tcp", "--dport", "50000", "-j", "DROP")
        stack.destroy()
