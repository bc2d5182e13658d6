"""SGLang and vLLM without Ray: one rank per Spark, which live and die together; and switching between engines."""

from __future__ import annotations

import pytest

from simulator import sparks
from tests.e2e.conftest import (
    SOME_IMAGE,
    Stack,
    container_id,
    end_container,
    end_engine,
    left_behind,
    on_rdma,
    reboot,
    restart_docker,
    says,
    step,
)

pytestmark = pytest.mark.e2e

VARIANTS = {
    "sglang": {"engine": "sglang"},
    "vllm-mp": {"serving": {"executor": "mp"}},
    "trtllm-mpi": {"engine": "trtllm", "serving": {"launcher": "mpi"}},
}
KEPT = {"sglang": 2, "vllm": 1, "trtllm": 0}
"""Containers of servers that a reboot starts again as they were: Ray's workers and Swarm's tasks are others."""

RANKS = ("cluster-server-spark-1", "cluster-server-spark-2")
READY = "cluster-endpoint-ready"


ALSO = [pytest.param(name, marks=pytest.mark.long) for name in ("sglang", "trtllm-mpi")]


@pytest.mark.parametrize("name", ["vllm-mp", *ALSO])
def test_a_pair_through_its_life(name, simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, name, pair, **VARIANTS[name])
    server = stack.container("server")
    try:
        step("up, and an answer")
        stack.up()
        assert stack.complete()["choices"]
        logs = "".join(sparks.on(spark, f"docker logs {server} 2>&1") for spark in pair)
        assert on_rdma(logs) == {"spark-1", "spark-2"}

        step("another model")
        stack.configure(**{**VARIANTS[name], "model": "gpt-oss-20b"})
        weights = {"cluster-weights-spark-1", "cluster-weights-spark-2"}
        assert set(stack.preview()) == {*weights, *RANKS, READY}
        stack.up()
        assert stack.outputs()["model"].endswith("gpt-oss-20b")
        assert stack.complete()["choices"]

        step("a rank's engine is killed")
        ids = [container_id(spark, server) for spark in pair]
        end_engine(pair[1], server)
        says(pair[0], server, "FAILED: rank 1 (spark-2) ended with exit code -9; all ranks start again in 5 s (1 of 3)")
        stack.comes_back()
        assert [container_id(spark, server) for spark in pair] == ids

        step("a rank is stopped by hand")
        sparks.on(pair[1], f"docker stop {server}")
        assert stack.preview() == {RANKS[1]: "update", READY: "replace"}
        stack.up()
        assert stack.is_clean()
    finally:
        stack.destroy()

    step("nothing is left behind")
    assert [left_behind(spark) for spark in pair] == before


def test_an_engine_is_switched_within_a_stack(alone):
    step("up with vLLM")
    alone.up()
    assert alone.outputs()["engine"] == "vllm"

    step("the preview of SGLang")
    alone.configure(engine="sglang")
    assert alone.preview() == {
        "cluster-image-spark-3": "replace",
        "cluster-server-spark-3": "replace",
        "cluster-endpoint-ready": "replace",
    } | ({"cluster-weights-spark-3": "update"})

    step("up with SGLang")
    alone.up()
    assert alone.outputs()["engine"] == "sglang"
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
@pytest.mark.parametrize("engine", ["sglang", "vllm", "trtllm"])
def test_rebooted_sparks_come_back_into_a_serving_cluster(engine, simulated, tmp_path):
    stack = Stack(tmp_path, f"reboot-{engine}", simulated[:2], engine=engine)
    try:
        stack.up()
        ids = [container_id(spark, stack.container("server")) for spark in simulated[: KEPT[engine]]]
        for cut in (simulated[1:2], simulated[:1], simulated[:2]):
            step(f"power cut of {', '.join(spark.name for spark in cut)}")
            reboot(*cut)
            stack.comes_back()
            assert [container_id(s, stack.container("server")) for s in simulated[: len(ids)]] == ids
        assert stack.is_clean()
    finally:
        stack.destroy()


@pytest.mark.long
def test_a_server_that_fails_again_and_again_gives_up_and_says_so(alone, third):
    step("up")
    alone.configure(engine="sglang", serving={"restarts": 1})
    alone.up()
    server = alone.container("server")

    step("it fails again and again")
    with sparks.turned([third], crash="CUDA error: an illegal memory access was encountered"):
        end_container(third, server)
        says(third, server, "gave up after 2 starts")
    state = sparks.on(third, f"docker inspect --format '{{{{.State.Running}}}} {{{{.State.Restarting}}}}' {server}")
    assert state.strip() == "false false"
    assert alone.preview() == {"cluster-server-spark-3": "update", READY: "replace"}

    step("the next up carries on")
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
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


def container_of(spark, stack):
    """Name of the Swarm task's container that runs on this Spark."""
    ours = f"label=dgx-spark.stack=organization/dgx-spark/{stack.name}"
    return sparks.on(spark, f"docker ps --filter {ours} --format '{{{{.Names}}}}'").strip()


def test_a_pair_on_docker_swarm_through_its_life(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    config = {"engine": "trtllm"}
    stack = Stack(tmp_path, "trtllm-swarm", pair, **config)
    try:
        sparks.on(pair[1], f"docker run -d --name stranger {SOME_IMAGE} sleep 100000")
        assert (
            "spark-2: Docker will be restarted for Swarm, which interrupts stranger"
            in stack("preview", "--stack", stack.name).text
        )

        step("up, and an answer")
        stack.up()
        assert sparks.on(pair[1], "docker inspect --format '{{.State.Running}}' stranger").strip() == "true"
        assert stack.complete()["choices"]
        log = sparks.on(pair[0], f"docker logs {container_of(pair[0], stack)} 2>&1")
        assert on_rdma(log) == {"spark-1", "spark-2"}
        tasks = sparks.on(
            pair[0], "docker ps --format '{{.ID}}' | xargs docker inspect --format '{{json .Config.Env}}'"
        )
        assert f"DOCKER_RESOURCE_GPU={pair[0].gpu_uuid}" in tasks
        shown = "docker inspect $(docker ps -q); docker service inspect $(docker service ls -q)"
        assert "PRIVATE KEY" not in sparks.on(pair[0], f"{shown}; docker config inspect $(docker config ls -q)")

        step("another model")
        config["model"] = "gpt-oss-20b"
        stack.configure(**config)
        weights = dict.fromkeys(("cluster-weights-spark-1", "cluster-weights-spark-2"), "replace")
        assert stack.preview() == weights | dict.fromkeys(RANKS, "update") | {READY: "replace"}
        stack.up()
        assert stack.outputs()["model"] == "gpt-oss-20b"
        assert stack.complete()["choices"]

        step("a rank is killed")
        end_container(pair[1], container_of(pair[1], stack))
        says(pair[0], container_of(pair[0], stack), "FAILED: rank 1 (spark-2) is lost")
        stack.comes_back()

        step("Docker restarts on both")
        restart_docker(*pair)
        stack.comes_back()

        step("the worker leaves the Swarm")
        sparks.on(pair[1], "docker swarm leave")
        changed = stack.preview()
        assert changed["cluster-swarm-spark-2"] == "replace"
        stack.up()
        assert stack.complete()["choices"]
        assert stack.is_clean()
        nodes = sparks.on(pair[0], "docker node ls --format '{{.Hostname}} {{.Status}}'").split("\n")
        assert sorted(filter(None, nodes)) == ["spark-1 Ready", "spark-2 Ready"]
    finally:
        stack.destroy()
        sparks.on(pair[1], "docker rm -f stranger", check=False)

    step("nothing is left behind")
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_engines_of_a_pair_are_switched_within_a_stack(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, "switched", pair, serving={"executor": "mp"})
    try:
        stack.up()
        for engine in ("sglang", "trtllm", "vllm"):
            step(f"switch to {engine}")
            stack.configure(engine=engine, serving={"executor": "mp"})
            changed = stack.preview()
            assert changed[READY] == "replace"
            assert ("cluster-swarm-manager" in changed) == (engine != "sglang")
            stack.up()
            assert stack.outputs()["engine"] == engine
            assert stack.complete()["choices"]
            assert stack.is_clean()
    finally:
        stack.destroy()

    step("nothing is left behind")
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_one_spark_with_tensorrt_llm_whose_image_lacks_what_it_needs_not(alone):
    alone.configure(engine="trtllm", image={"name": "simulated/trtllm:without-sshd"})
    alone.up()
    assert alone.outputs()["model"] == "gpt-oss-120b"
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
def test_copies_of_a_model_on_two_sparks(simulated, tmp_path):
    stack = Stack(tmp_path, "copies", simulated[:2], serving={"executor": "mp", "dataParallel": 2})
    stack.serves_and_goes()
