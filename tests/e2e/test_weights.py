"""Weights: interrupted, damaged, staged, offline, shared and from a directory; and tokens, which stay nowhere."""

from __future__ import annotations

import re
import subprocess

import pytest

from ops.project import Project
from ops.switch import switch
from simulator import network, sparks
from simulator.hub import MEBIBYTE, RATE, TOKEN
from simulator.layout import GATEWAY, HUB_PORT, RUN
from tests.e2e.conftest import Stack, left_behind, step

pytestmark = pytest.mark.e2e

LARGE = "simulated/large"
SIZE = 32 * MEBIBYTE
HUB = "~/.cache/huggingface/hub"
FOLDER = f"{HUB}/models--simulated--large"


def sent_by_the_hub(name):
    log = (RUN / "hub.log").read_text()
    return sum(int(count) for count in re.findall(rf"sent (\d+) bytes of /{name}/resolve/\S+\.safetensors", log))


def sent_over_the_fabric(spark):
    return int(sparks.on(spark, "cat /sys/class/net/enp1s0f1np1/statistics/tx_bytes"))


def up_until(stack, spark, condition, interrupt):
    """Begin an `up`, and interrupt it when the shell condition holds on the Spark."""
    with subprocess.Popen(
        [*stack.argv, "up", "--yes", "--skip-preview", "--stack", stack.name],
        env=stack.environment, cwd=stack.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as run:  # fmt: skip
        sparks.wait_for(lambda: "yes" in sparks.on(spark, f"{condition} && echo yes", check=False), condition)
        interrupt()
        text = run.stdout.read()
    assert run.returncode != 0, text
    assert "Traceback" not in text
    return text


def has(pattern, size):
    return f"test $(stat -c %b {pattern} 2>/dev/null | sort -n | tail -1) -gt {size // 512}"


@pytest.mark.long
def test_a_download_that_a_power_cut_interrupted_goes_on_where_it_was(alone, third):
    step("a power cut while it downloads")
    alone.configure(model=LARGE)
    rate = RUN / "hub" / RATE
    before = sent_by_the_hub(LARGE)
    rate.write_text(str(6 * MEBIBYTE))
    try:
        up_until(alone, third, has(f"{FOLDER}/blobs/*.incomplete", SIZE // 3), lambda: sparks.power_off(third))
    finally:
        rate.unlink()
        sparks.power_on(third)
        sparks.wait_until_up(sparks.existing())

    step("the next up fetches what is missing")
    alone.up()
    assert sent_by_the_hub(LARGE) - before < SIZE * 1.2
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
def test_each_spark_sends_once_an_interrupted_chain_goes_on_and_a_damaged_file_is_mended(simulated, third, tmp_path):
    stack = Stack(tmp_path, "copies", simulated, engine="sglang", model=LARGE, serving={"pipelineParallel": 3})
    head, second = simulated[:2]
    for spark in (second, third):
        sparks.on(spark, f"rm -rf {FOLDER}")

    step("a copy is interrupted")
    network.throttle(head, 40)
    try:
        begun = [sent_over_the_fabric(spark) for spark in (head, second)]
        kill = "pkill -9 -u nvidia -x ssh"
        up_until(stack, third, has(f"{FOLDER}/blobs/*", SIZE // 3), lambda: sparks.on(third, kill))

        step("the next up copies what is missing")
        network.throttle(head, None)
        stack.up()
        sent = [sent_over_the_fabric(spark) - before for spark, before in zip((head, second), begun, strict=True)]
        assert all(SIZE < bytes_ < SIZE * 1.25 for bytes_ in sent), sent
        assert stack.is_clean()

        step("a file is damaged on one Spark")
        # As long as it was, with other content: what a failing disk or a careless hand leaves.
        sparks.on(third, f"printf damaged | dd conv=notrunc status=none of=$(readlink -f {FOLDER}/snapshots/*/model-*)")
        assert stack.preview() == {"cluster-weights-spark-3": "replace"}
        before = sent_over_the_fabric(second)
        stack.up()
        assert SIZE < sent_over_the_fabric(second) - before < SIZE * 1.25
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        network.throttle(head, None)
        stack.destroy()


def everything_written(stack, spark):
    """Whatever a token could have got into."""
    looks = (
        "docker ps -aq | xargs -r docker inspect",
        "docker ps -aq | xargs -r -n 1 docker logs 2>&1",
        "docker images -q | sort -u | xargs -r docker history --no-trunc",
        "ps -eww -o args",
        "sudo sh -c 'cat /proc/[0-9]*/environ' 2>/dev/null | tr '\\0' '\\n'",
        "sudo grep -rIl . /home /root /etc /var/log /run /tmp --include='*' 2>/dev/null | sudo xargs -r grep -h . ",
    )
    on_spark = [sparks.on(spark, look, check=False) for look in looks]
    here = [path.read_text(errors="replace") for path in stack.folder.rglob("*") if path.is_file()]
    return "\n".join([*on_spark, *here])


def test_a_gated_model_needs_a_token_which_is_nowhere_to_be_found_afterwards(alone, third):
    step("no token")
    alone.configure(model="llama-3.3-70b", serving={"checkFit": False})
    assert "is gated and no token is set" in alone.refusal()

    step("a token without access")
    alone("config", "set", "--secret", "hfToken", "hf_of_somebody_else", "--stack", alone.name)
    assert "this token has no access to meta-llama/Llama-3.3-70B-Instruct" in alone.refusal()

    step("the right token: up, and an answer")
    alone("config", "set", "--secret", "hfToken", TOKEN, "--stack", alone.name)
    said = alone.up().text
    assert alone.complete()["choices"]

    step("the token is nowhere")
    written = everything_written(alone, third)
    assert "dgx-spark-alone-server" in written
    assert len(written) > 100_000
    assert TOKEN not in written
    assert TOKEN not in said
    assert alone.is_clean()


def test_a_staged_model_changes_nothing_else_and_is_not_read_again(alone, third):
    step("up")
    where = Project(alone.folder, alone.environment)
    alone.up()
    server = sparks.on(third, f"docker inspect --format '{{{{.Id}}}}' {alone.container('server')}")

    step("another model is staged: the server stays")
    switch(where, "gpt-oss-20b", None, lambda _question: True, stage_only=True)
    assert server == sparks.on(third, f"docker inspect --format '{{{{.Id}}}}' {alone.container('server')}")
    assert "staged-openai-gpt-oss-20b.json" in sparks.on(third, "ls ~/.local/state/dgx-spark/*alone")
    assert alone.is_clean()

    step("switched to it")
    switch(where, "gpt-oss-20b", None, lambda _question: True)
    assert alone.outputs()["model"] == "openai/gpt-oss-20b"
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
def test_a_drafts_weights_are_placed_told_to_the_engine_and_mended_and_leave_with_it(alone, third):
    draft = {"method": "eagle3", "model": "simulated/draft", "tokens": 4}
    for engine, word in (("vllm", "method='eagle3'"), ("sglang", "speculative_algorithm=EAGLE3"), ("trtllm", "Eagle")):
        alone.configure(engine=engine, model="qwen2.5-7b", serving={"draft": draft})
        alone.up()
        assert alone.complete()["choices"]
        assert word in sparks.on(third, f"docker logs {alone.container('server')} 2>&1")
        assert alone.is_clean()

    weights = f"{HUB}/models--simulated--draft/snapshots/*/model-00001-of-00001.safetensors"
    sparks.on(third, f"rm $(readlink -f {weights}) {weights}")
    assert any("draft" in name for name in alone.preview())
    alone.up()
    assert sparks.on(third, f"ls {weights}")
    assert alone.is_clean()

    alone.configure(engine="trtllm", model="qwen2.5-7b", serving={"draft": {"method": "none"}})
    alone.up()
    assert "draft.json" not in sparks.on(third, "ls ~/.local/state/dgx-spark/*alone")
    assert alone.is_clean()


@pytest.mark.long
def test_a_model_put_there_by_hand_is_served_without_the_hub(alone, third):
    step("the model is there")
    alone.configure(model="qwen2.5-7b")
    alone.up()
    alone.destroy()

    step("served without a hub")
    offline = {"offline": True, "endpoint": "http://nobody.invalid"}
    alone.configure(model="qwen2.5-7b", weights=offline)
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()

    step("served from a directory, which stays")
    sparks.on(third, f"mkdir ~/mine && cp -L {HUB}/models--Qwen*/snapshots/*/* ~/mine")
    try:
        alone.configure(model="/home/nvidia/mine", weights=offline)
        alone.up()
        assert alone.outputs()["model"] == "mine"
        assert alone.complete()["choices"]
        assert alone.is_clean()
        alone.destroy()
        assert "config.json" in sparks.on(third, "ls ~/mine")
    finally:
        sparks.on(third, "rm -rf ~/mine")


def test_a_directory_is_copied_to_the_other_spark_and_taken_away_there_alone(simulated, tmp_path):
    pair = simulated[:2]

    step("a directory of weights on the head")
    names = "config.json tokenizer.json model.safetensors.index.json model-00001-of-00001.safetensors"
    get = f"curl -sfO http://{GATEWAY}:{HUB_PORT}/{LARGE}/resolve/main/$name"
    sparks.on(pair[0], f"mkdir ~/mine && cd ~/mine && for name in {names}; do {get}; done")
    before = [left_behind(spark) for spark in pair]

    step("served by both, and gone")
    stack = Stack(tmp_path, "directory", pair, engine="sglang", model="/home/nvidia/mine", weights={"keep": False})
    try:
        stack.serves_and_goes()
        assert [left_behind(spark) for spark in pair] == before
    finally:
        sparks.on(pair[0], "rm -rf ~/mine")
