"""Two Sparks, vLLM on Ray: one stack through its life, each test leaving it as it found it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from simulator import network, sparks
from simulator.layout import Spark
from tests.e2e.conftest import Stack, container_id, left_behind, on_rdma, step

pytestmark = pytest.mark.e2e

SERVER = "cluster-server-spark-1"
READY = "cluster-endpoint-ready"
WEIGHTS = "~/.cache/huggingface/hub/models--openai--gpt-oss-120b/snapshots/*"


@pytest.fixture(scope="module")
def before(simulated: list[Spark]) -> list[dict[str, str]]:
    return [left_behind(spark) for spark in simulated[:2]]


@pytest.fixture(scope="module")
def pair(
    simulated: list[Spark], before: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("pair"), "pair", simulated[:2])
    try:
        stack.up()
        yield stack
    finally:
        for spark in simulated[:2]:
            network.cable(spark, port=1)
        stack.configure()
        stack.destroy()


def server_log(pair: Stack) -> str:
    return sparks.on(pair.nodes[0], f"docker logs {pair.container('server')} 2>&1")


def test_from_nothing_to_a_completion(pair):
    answer = pair.complete("One two three")
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert answer["choices"][0]["text"].strip()


def test_the_api_is_openais(pair):
    base, model = pair.outputs()["api_base"], pair.outputs()["model"]
    assert (
        [m["id"] for m in requests.get(f"{base}/models", timeout=5).json()["data"]]
        == ["openai/gpt-oss-120b"]
        == [model]
    )
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    answer = requests.post(
        f"{base}/chat/completions", json={**body, "stream_options": {"include_usage": True}}, timeout=60
    )
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 3
    assert "vllm:generation_tokens_total" in requests.get(base.removesuffix("/v1") + "/metrics", timeout=5).text


def test_a_second_preview_is_clean(pair):
    assert pair.is_clean()


def test_the_ranks_talk_over_rdma(pair):
    log = server_log(pair)
    assert on_rdma(log) == {"spark-1", "spark-2"}
    listed = [line for line in log.splitlines() if "NET/IB : Using" in line]
    assert all("Using [0]roceP2p1s0f1:1/RoCE [1]rocep1s0f1:1/RoCE [RO]" in line for line in listed)


def test_outputs_show_each_rank(pair):
    nodes = pair.outputs()["nodes"]
    assert [nodes[name]["rank"] for name in ("spark-1", "spark-2")] == [0, 1]
    assert nodes["spark-2"]["address"] == "192.168.177.12"
    assert nodes["spark-2"]["hcas"] == ["rocep1s0f1", "roceP2p1s0f1"]


def test_weights_were_downloaded_once_and_copied_over_the_fabric(pair, simulated):
    log = (simulated[0].home.parent / "hub.log").read_text()
    downloads = {
        line.split()[0]
        for line in log.splitlines()
        if "GET" in line and "gpt-oss-120b/resolve" in line and ".safetensors " in line
    }
    # The third Spark has stacks of its own.
    assert downloads - {simulated[2].address} == {simulated[0].address}
    first, second = (sparks.on(spark, f"cd {WEIGHTS} && sha256sum *.safetensors") for spark in simulated[:2])
    assert first == second
    assert ".safetensors\n" in first


def test_a_stopped_worker_is_found_and_started(pair, simulated):
    sparks.on(simulated[1], f"docker stop -t 1 {pair.container('ray-worker')}")
    assert pair.preview()["cluster-ray-spark-2"] == "update"
    pair.up()
    assert pair.complete()["choices"]


@pytest.mark.long
def test_a_removed_server_is_found_and_made_again(pair, simulated):
    sparks.on(simulated[0], f"docker rm -f {pair.container('server')}")
    assert pair.preview() == {SERVER: "create", READY: "replace"}
    pair.up()
    assert pair.complete()["choices"]


def test_another_context_length_replaces_the_server_alone(pair, simulated):
    ray = [
        container_id(simulated[0], pair.container("ray-head")),
        container_id(simulated[1], pair.container("ray-worker")),
    ]

    step("the preview shows the setting, and no script")
    pair.configure(serving={"maxModelLen": 8192})
    assert pair.preview() == {SERVER: "replace", READY: "replace"}
    shown = pair("preview", "--diff", "--stack", pair.name).text.partition("Outputs:")[0]
    assert '"--max-model-len=8192"' in shown
    assert "import" not in shown
    # The CLI shows words that stay, too, and what the first refresh adds to the state.
    assert len(shown.splitlines()) <= (25 if "simulator.engine" in pair.argv else 200)

    step("up: Ray stays")
    pair.up()
    models = requests.get(f"{pair.outputs()['api_base']}/models", timeout=5).json()
    assert models["data"][0]["max_model_len"] == 8192
    after = [
        container_id(simulated[0], pair.container("ray-head")),
        container_id(simulated[1], pair.container("ray-worker")),
    ]
    assert after == ray


def test_another_model_keeps_ray_up_and_is_in_place_before_the_old_server_stops(pair, simulated):
    ray = container_id(simulated[0], pair.container("ray-head"))

    step("the preview: weights and server")
    pair.configure(model="gpt-oss-20b")
    assert set(pair.preview()) == {"cluster-weights-spark-1", "cluster-weights-spark-2", SERVER, READY}

    step("up: the old server stops when the weights are there")
    text = pair.up().text
    assert text.index("cluster-weights-spark-2 created replacement") < text.index(f"{SERVER} deleted original")
    assert pair.outputs()["model"] == "openai/gpt-oss-20b"
    assert pair.complete()["choices"]
    assert container_id(simulated[0], pair.container("ray-head")) == ray


@pytest.mark.long
def test_a_gid_index_moved_by_a_reboot_changes_that_rank_and_the_server_on_it(pair, simulated):
    network.cable(simulated[1], port=1, gid_index=5)
    changed = pair.preview()
    assert {name for name in changed if "fabric" not in name} == {
        "cluster-ray-spark-2",
        "cluster-ray-formed",
        SERVER,
        READY,
    }
    pair.up()
    assert pair.complete()["choices"]


@pytest.mark.long
def test_a_pair_with_different_ports_and_gid_indexes_runs_on_rdma(pair, simulated):
    head = container_id(simulated[0], pair.container("ray-head"))
    network.cable(simulated[1], port=0, gid_index=7)
    pair.up()
    assert container_id(simulated[0], pair.container("ray-head")) == head
    log = server_log(pair)
    listed = {line.split("spark-")[1][0]: line for line in log.splitlines() if "NET/IB : Using" in line}
    assert "Using [0]roceP2p1s0f1:1/RoCE [1]rocep1s0f1:1/RoCE [RO]" in listed["1"]
    assert "Using [0]roceP2p1s0f0:1/RoCE [1]rocep1s0f0:1/RoCE [RO]" in listed["2"]
    assert on_rdma(log) == {"spark-1", "spark-2"}
    assert pair.complete()["choices"]


@pytest.mark.long
def test_scripts_deleted_behind_its_back_are_laid_again_and_nothing_else_changes(pair, simulated):
    sparks.on(simulated[1], "rm -r ~/.local/state/dgx-spark/organization.dgx-spark.pair/scripts")
    assert pair.preview() == {"spark-2-lease": "update"}
    pair.up()
    assert pair.is_clean()


def test_a_weights_file_deleted_behind_its_back_is_put_back(pair, simulated):
    sparks.on(simulated[1], "rm $(readlink -f ~/.cache/huggingface/hub/*20b/snapshots/*/model-00001*)")
    assert pair.preview() == {"cluster-weights-spark-2": "replace"}
    pair.up()
    assert pair.preview() == {}


@pytest.mark.long
def test_a_head_that_is_replaced_gets_its_worker_back(pair, simulated):
    sparks.on(simulated[0], f"docker rm -f {pair.container('server')} {pair.container('ray-head')}")
    worker = container_id(simulated[1], pair.container("ray-worker"))
    pair.up()
    assert container_id(simulated[1], pair.container("ray-worker")) == worker
    assert pair.complete()["choices"]


@pytest.mark.long
def test_a_server_that_dies_while_it_loads_fails_the_up_at_once_with_every_ranks_log(pair, simulated):
    step("a rank that dies while it loads")
    crash = "CUDA error: an illegal memory access was encountered"
    with sparks.turned(simulated[1:2], crash=crash, load_seconds=1):
        sparks.on(simulated[1], f"docker rm -f {pair.container('ray-worker')}")
        failed = pair.up(check=False)
    assert failed.code != 0
    assert crash in failed.text
    assert f"spark-2 {pair.container('ray-worker')}:" in failed.text

    step("the next up carries on")
    sparks.on(simulated[1], f"docker rm -f {pair.container('ray-worker')}")
    pair.up()
    assert pair.complete()["choices"]
    assert pair.is_clean()


def test_destroy_hands_both_sparks_back_as_they_were(pair, before, simulated):
    pair.destroy()
    assert [left_behind(spark) for spark in simulated[:2]] == before
    assert "openai--gpt-oss-120b" in sparks.on(simulated[1], "ls ~/.cache/huggingface/hub")
