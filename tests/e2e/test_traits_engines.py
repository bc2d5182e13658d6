"""Engines that serve, and are of no use: noise, chats without words, ranks that wait for each other without end."""

from __future__ import annotations

import pytest
import requests

from ops import check, doctor
from ops.project import Project
from ops.stack import of
from simulator import network, sparks
from tests.e2e.conftest import Stack, on_rdma, step

ALSO = [pytest.param(engine, marks=pytest.mark.long) for engine in ("sglang", "trtllm")]
"""Beside vLLM, in `./spark test --all` alone: the same judgement of other engines."""

pytestmark = pytest.mark.e2e


@pytest.mark.long
def test_an_engine_that_garbles_is_not_ready_unless_the_user_says_so(alone, third):
    step("not ready")
    sparks.set_knobs(third, garbles=True)
    failed = alone.up(check=False)
    assert failed.code != 0
    assert "the answer makes no sense: 'What is the capital of France?" in failed.text
    assert "--moe-backend=marlin" in failed.text

    step("unless the user says so")
    alone.configure(serving={"checkAnswer": False})
    assert "lockhandlelockhandle" in alone.up().text


def test_a_model_must_chat_even_where_completions_work(alone, third):
    sparks.set_knobs(third, mute=True)
    failed = alone.up(check=False)
    assert failed.code != 0
    assert "the chat came back with neither content nor reasoning" in failed.text
    assert alone.complete()["choices"]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["vllm", *ALSO])
def test_a_model_without_a_chat_template_is_judged_by_its_completions(engine, alone):
    alone.configure(engine=engine, model="simulated/base")
    assert "the model answers: 'Paris.'" in alone.up().text


@pytest.mark.long
@pytest.mark.parametrize("engine", ["vllm", ALSO[0]])
def test_an_embedding_model_is_served_for_embeddings(engine, alone):
    alone.configure(engine=engine, model="simulated/embedding")
    assert "the model answers: 'vectors of 32 numbers'" in alone.up().text
    outputs = alone.outputs()
    body = {"model": outputs["model"], "input": "Hello"}
    answer = requests.post(f"{outputs['api_base']}/embeddings", json=body, timeout=60)
    assert len(answer.json()["data"][0]["embedding"]) == 32
    checks = check.run(of(Project(alone.folder, alone.environment), alone.name))
    assert [one.name for one in checks if not one.passed] == []
    assert alone.is_clean()
    alone.configure(engine="trtllm", model="simulated/embedding")
    assert "engine: simulated/embedding is for embeddings, which trtllm does not serve" in alone.refusal()


@pytest.mark.long
def test_a_reranker_is_served_for_ranking(alone):
    alone.configure(model="simulated/reranker")
    assert "'Paris is the capital of France.' scores" in alone.up().text
    assert alone.is_clean()


@pytest.fixture
def at_home(simulated):
    """Two Sparks whose default route is Wi-Fi."""
    pair = simulated[:2]
    for spark in pair:
        network.join_wifi(spark)
    yield pair
    for spark in pair:
        network.leave_wifi(spark)


@pytest.mark.long
def test_sglangs_ranks_meet_on_the_fabric_whatever_the_default_route_is(at_home, tmp_path):
    made = Stack(tmp_path, "home", at_home, engine="sglang")
    try:
        made.up()
        logs = "".join(sparks.on(spark, f"docker logs {made.container('server')} 2>&1") for spark in at_home)
        assert on_rdma(logs) == {"spark-1", "spark-2"}
        assert made.complete()["choices"]
        assert made.is_clean()
        # What every pair at home did without those variables: nothing, for ever.
        wrong = {"env": {"SGLANG_HOST_IP": "", "HOST_IP": ""}, "startupTimeout": 20}
        made.configure(engine="sglang", serving=wrong)
        failed = made.up(check=False)
        assert failed.code != 0
        assert "not ready within 20 s" in failed.text
        assert "SGLANG_HOST_IP must be each one's fabric address" in failed.text
    finally:
        made.destroy()


def test_doctor_says_how_old_the_image_is(alone):
    alone.configure(engine="trtllm")
    found = doctor.examine(of(Project(alone.folder, alone.environment), alone.name))[0]
    (age,) = (finding for finding in found if finding.check == "image age")
    assert "nvcr.io/nvidia/tensorrt-llm/release:1.2.1 came out" in age.detail
    assert age.state == "warning"
