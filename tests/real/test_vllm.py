"""A genuine vLLM, from PyPI, on one simulated Spark and on two: its models' answers are known."""

from __future__ import annotations

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from components.plan.dashboards import ENGINES
from ops import bench, check
from ops.check import ANSWER, TOOL, Api, asked, events
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import of
from ops.switch import rollback, switch
from simulator import sparks
from simulator.genuine.stack import ADA, GRACE
from simulator.layout import RUN
from tests.e2e import api
from tests.e2e.conftest import container_id, end_container, end_engine, says, step

pytestmark = [pytest.mark.long, pytest.mark.real]

WHO, COUNT, WEATHER = "Who are you?", "Count from one to twenty.", "What is the weather in Paris? Use the tool."
UP = 400
"""Seconds for a server to come back on a machine that has other things to do."""

TORN = "simulated/torn"

READY, SERVER = "cluster-endpoint-ready", "cluster-server-{}"


def test_one_spark_through_its_life(alone, tmp_path, monkeypatch):
    spark, server = alone.nodes[0], alone.container("server")
    step("up")
    alone.up()
    assert alone.says(WHO) == "I am Ada."
    assert alone.is_clean()

    step("streamed, with usage")
    outputs = alone.outputs()
    answer = Api(outputs["api_base"], ADA, "").post(
        "chat/completions",
        stream=True,
        messages=asked(COUNT),
        max_tokens=ANSWER,
        stream_options={"include_usage": True},
    )
    *pieces, last = events(answer)
    text = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces)
    assert text.split()[::19] == ["one", "twenty"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] >= 20

    step("a tool is called")
    choice = alone.chat(WEATHER, tools=[TOOL])
    assert choice["finish_reason"] == "tool_calls"
    function = choice["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Paris"})

    step("every query of the dashboard names metrics that it has")
    shown = requests.get(outputs["api_base"].replace("/v1", "/metrics"), timeout=30).text
    names = set(re.findall(r"^(vllm:\w+)", shown, re.MULTILINE))
    for panel in ENGINES["vllm"]:
        for _, query in panel.queries:
            assert set(re.findall(r"vllm:\w+", query)) <= names, query

    step("check and bench")
    where = of(Project(alone.folder, alone.environment), alone.name)
    # There is no GPU that could work.
    assert [result.name for result in check.run(where) if not result.passed] == ["every GPU works"]
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    measured = bench.run(where, bench.chosen(None, prompts=4, input=64, output=16))
    assert (measured.requests, measured.failed, measured.output_tokens) == (4, 0, 16)
    assert 32 <= measured.input_tokens <= 96

    step("another model, and back")
    for model, name in ((GRACE, "Grace"), (ADA, "Ada")):
        alone.configure(model=model)
        assert SERVER.format(spark.name) in alone.preview()
        alone.up()
        assert alone.says(WHO) == f"I am {name}."

    step("its engine is killed")
    first = container_id(spark, server)
    end_engine(spark, server)
    says(spark, server, "all ranks start again in 5 s (1 of 3)")
    alone.comes_back(limit=UP)
    assert container_id(spark, server) == first

    step("it is stopped by hand")
    sparks.on(spark, f"docker stop {server}")
    code = sparks.on(spark, f"docker inspect --format '{{{{.State.ExitCode}}}}' {server}")
    assert code.strip() == "143"
    assert alone.preview() == {SERVER.format(spark.name): "update", READY: "replace"}
    alone.up()
    assert alone.says(WHO) == "I am Ada."


def test_the_api_refuses_as_its_stand_in_does(alone):
    key = "key-of-the-engine-itself"
    alone.configure()
    alone("config", "set", "--secret", "apiKey", key, "--stack", alone.name)
    alone.up()
    api.refuses(alone, key)


FEW = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}
"""What the genuine engine needs of variables, but for its cache's size."""

LITTLE, ROOM = {"env": FEW, "extraArgs": ["--enforce-eager", f"--kv-cache-memory-bytes={8 * 65536}"]}, 896
"""A cache of eight blocks of 128 tokens, each of 512 bytes, and the tokens that it has room for: one stays empty."""

FAILURES = {
    "no memory": (
        {"env": {**FEW, "VLLM_CPU_KVCACHE_SPACE": "0"}},
        "No available memory for the cache blocks.",
        "the weights leave no room for the cache",
    ),
    "little memory": (
        LITTLE,
        f"the estimated maximum model length is {ROOM}.",
        f"there is room for {ROOM} tokens: pulumi config set --path serving.maxModelLen {ROOM}",
    ),
    "too long": (
        # As serving.maxModelLen a preview refuses it.
        {"extraArgs": ["--enforce-eager", "--max-model-len=4096"]},
        "is greater than the derived max_model_len",
        "the model was made for 2048 tokens",
    ),
    "unknown option": (
        {"extraArgs": ["--no-such-option"]},
        "unrecognized arguments: --no-such-option",
        "serving.extraArgs",
    ),
    "bad tokenizer": ({"extraArgs": ["--enforce-eager", "--tokenizer=/nowhere"]}, "/nowhere", ""),
}
"""What is wrong → (serving, what the engine says, what we say of it)."""


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_shown_with_what_to_do(what, alone):
    serving, theirs, ours = FAILURES[what]
    alone.configure(serving={**serving, "restarts": 0})
    failed = alone.up(check=False)
    # For whoever reads why a test has failed.
    print(failed.text)
    assert failed.code != 0
    # The display wraps long lines.
    shown = " ".join(failed.text.split())
    assert theirs in shown
    assert ours in shown


def test_a_hint_that_is_followed_helps(alone):
    alone.configure(serving={**LITTLE, "maxModelLen": ROOM})
    alone.up()
    assert alone.says(WHO) == "I am Ada."


@pytest.fixture
def torn():
    """A repository whose weights have a layer less than its config.json says, on the hub for one test."""
    hub = RUN / "hub"
    shutil.copytree(hub / ADA, hub / TORN)
    config = hub / TORN / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 3}))
    yield
    shutil.rmtree(hub / TORN)


def test_a_switch_to_a_model_that_fails_brings_the_former_back(alone, torn, capfd):
    alone.configure(serving={"restarts": 0})
    alone.up()
    where = Project(alone.folder, alone.environment)
    with pytest.raises(CommandError, match=rf"{TORN} did not get ready .* {ADA} serves again"):
        switch(where, TORN, None, lambda _question: True)
    shown = " ".join("".join(capfd.readouterr()).split())
    assert "weights were not initialized from checkpoint" in shown
    assert alone.outputs()["model"] == ADA
    assert alone.says(WHO) == "I am Ada."
    assert alone.is_clean()

    step("one that serves, and back")
    switch(where, GRACE, None, lambda _question: True)
    assert alone.says(WHO) == "I am Grace."
    rollback(where, None, lambda _question: True)
    assert alone.says(WHO) == "I am Ada."


def test_two_sparks_live_and_die_together(pair):
    head, other = pair.nodes
    server = pair.container("server")
    step("up")
    # More restarts than the failures here, which come too soon after each other to be forgotten.
    pair.configure(serving={"stuckAfter": 60, "restarts": 9})
    pair.up()
    assert pair.says(WHO) == "I am Ada."
    assert pair.is_clean()
    ids = [container_id(spark, server) for spark in pair.nodes]

    for spark, rank in ((other, 1), (head, 0)):
        step(f"the engine of rank {rank} is killed")
        end_engine(spark, server)
        says(head, server, f"FAILED: rank {rank} ({spark.name}) ended with exit code -9")
        pair.comes_back(limit=UP)
        assert pair.says(WHO) == "I am Ada."

    step("a rank is frozen")
    engine = "$(($(ps -o pid= --ppid $(ps -o pid= --ppid 1 | head -1) | head -1)))"
    sparks.on(other, f"docker exec {server} sh -c 'kill -s STOP -- -{engine}'")
    says(head, server, "FAILED: the engine is stuck", limit=UP)
    pair.comes_back(limit=UP)
    assert pair.says(WHO) == "I am Ada."

    step("both containers are killed")
    for spark in (other, head):
        end_container(spark, server)
    pair.comes_back(limit=UP)
    assert [container_id(spark, server) for spark in pair.nodes] == ids
    assert pair.says(WHO) == "I am Ada."
    assert pair.is_clean()


def test_two_sparks_that_are_told_to_end_answer_what_they_have_accepted(pair):
    server, few = pair.container("server"), 50
    pair.configure()
    pair.up()

    def answers(tokens):
        """Of exactly so many; the seconds that it took."""
        began = time.monotonic()
        assert pair.complete(max_tokens=tokens, ignore_eos=True)["usage"]["completion_tokens"] == tokens
        return time.monotonic() - began

    metrics = pair.outputs()["api_base"].replace("/v1", "/metrics")

    def runs():
        return re.search(r"^vllm:num_requests_running\{.*\} 1.0$", requests.get(metrics, timeout=30).text, re.MULTILINE)

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(answers, min(1900, round(few * 8 / answers(few))))
        sparks.wait_for(lambda: bool(runs()), "the request to run")
        ended = [pool.submit(sparks.on, spark, f"docker stop --time 60 {server}", timeout=90) for spark in pair.nodes]
        assert not asked.done()
        asked.result()
        assert not any(one.done() for one in ended)
    assert "answering what was accepted" in sparks.on(pair.nodes[0], f"docker logs {server} 2>&1")


def test_two_sparks_on_ray_which_is_added_to_the_image(pair):
    head, other = pair.nodes
    server, on_ray = pair.container("server"), {"executor": "ray"}

    def ids():
        return [container_id(head, pair.container("ray-head")), container_id(other, pair.container("ray-worker"))]

    step("up")
    pair.configure(serving=on_ray)
    pair.up()
    assert pair.says(WHO) == "I am Ada."
    assert pair.is_clean()

    step("another model: Ray stays")
    ray = ids()
    pair.configure(model=GRACE, serving=on_ray)
    pair.up()
    assert pair.says(WHO) == "I am Grace."
    assert ids() == ray

    step("the server is killed")
    end_container(head, server)
    pair.comes_back(limit=UP)
    assert pair.says(WHO) == "I am Grace."

    step("Ray's worker is killed, with the rank in it")
    end_container(other, pair.container("ray-worker"))
    pair.comes_back(limit=UP)
    assert pair.says(WHO) == "I am Grace."
    assert pair.is_clean()
