"""Docker, its settings, its image stores and the caches of models, as they are met on Sparks that people have used."""

from __future__ import annotations

import re

import pytest

from simulator import sparks
from simulator import up as simulation
from simulator.layout import RUN
from simulator.shell import SimulatorError
from tests.e2e.conftest import SOME_IMAGE, Stack, left_behind, step

pytestmark = pytest.mark.e2e

CACHE = "~/.cache/huggingface"
RENAMED = "registry.example/engine:1"
QWEN = "Qwen/Qwen2.5-7B-Instruct"


def settings_of_docker(spark):
    return sparks.on(spark, "cat /etc/docker/daemon.json /etc/nvidia-container-runtime/config.toml")


def repositories(spark):
    return set(sparks.on(spark, "docker images --format '{{.Repository}}'").split())


@pytest.mark.long
def test_a_derived_image_leaves_no_second_name_and_no_trace_of_its_build(simulated, tmp_path):
    pair = simulated[:2]
    before, named = [left_behind(spark) for spark in pair], [repositories(spark) for spark in pair]
    image = {"name": "simulated/vllm:without-ray"}
    stack = Stack(tmp_path, "derived", pair, engine="vllm", serving={"executor": "ray"}, image=image)
    stack.serves_and_goes()
    assert [left_behind(spark) for spark in pair] == before
    assert [repositories(spark) for spark in pair] == [former | {"dgx-spark/with-ray"} for former in named]


@pytest.mark.long
def test_a_spark_with_todays_docker_makes_a_pair_with_one_that_has_debians(simulated, unlike, tmp_path):
    try:
        newer = unlike(docker="28")
    except SimulatorError as error:
        pytest.skip(f"no newer Docker to be had here: {error}")
    assert sparks.on(newer, "docker version --format '{{.Server.Version}}'").startswith("28.")
    before = left_behind(newer)
    image = {"name": "simulated/vllm:without-ray"}
    stack = Stack(tmp_path, "newer", [simulated[0], newer], serving={"executor": "ray"}, image=image)
    stack.serves_and_goes()
    assert left_behind(newer) == before


@pytest.mark.long
def test_swarm_registers_the_nvidia_runtime_where_it_is_missing_and_takes_it_away_again(simulated, unlike, tmp_path):
    pair = [simulated[0], unlike(nvidia_runtime=False)]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, "swarm", pair, engine="trtllm")
    try:
        stack.up()
        assert "nvidia" in sparks.on(pair[1], "docker info --format '{{json .Runtimes}} {{.DefaultRuntime}}'")
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_docker_that_does_not_take_our_settings_is_put_back_and_running(simulated, unlike, tmp_path):
    pair = [simulated[0], unlike(docker_flags=("--default-shm-size=1G",))]
    before = [left_behind(spark) for spark in pair]
    sparks.on(pair[1], f"docker run --detach --name jupyter {SOME_IMAGE} sleep infinity")
    stack = Stack(tmp_path, "collision", pair, engine="trtllm")
    try:
        step("refused by Docker: put back")
        failed = stack.up(check=False)
        assert failed.code != 0
        assert "both as a flag and in the configuration file: default-shm-size" in failed.text
        assert "are as they were" in failed.text
        assert "Traceback" not in failed.text
        assert settings_of_docker(pair[1]) == before[1]["docker"]

        step("what ran before runs again")
        # What ran before runs again, and the failure is no success to the next run.
        assert sparks.on(pair[1], "docker inspect --format '{{.State.Running}}' jupyter") == "true\n"
        assert stack.preview()["cluster-swarm-host-spark-3"] in ("create", "replace")
    finally:
        sparks.on(pair[1], "docker rm -f jupyter")
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_live_restore_is_refused_at_preview_for_swarm_alone(simulated, unlike, tmp_path):
    pair = [simulated[0], unlike(live_restore=True)]
    stack = Stack(tmp_path, "live", pair, engine="trtllm")
    assert '"live-restore": false in /etc/docker/daemon.json' in stack.refusal()
    stack.configure(engine="trtllm", serving={"launcher": "mpi"})
    assert stack.preview()


def image_id(spark, name):
    return sparks.on(spark, f"docker image inspect --format '{{{{.Id}}}}' {name}").strip()


def serves_one_image(stack, name):
    """Up, an answer and a clean preview; the ids that the Sparks have for it."""
    stack.up()
    assert stack.complete()["choices"]
    assert stack.is_clean()
    return [image_id(spark, name) for spark in stack.nodes]


@pytest.mark.long
def test_one_image_in_two_stores_is_copied_both_ways_and_is_the_same_image(simulated, unlike, tmp_path):
    pair = [simulated[0], unlike(containerd_images=True)]
    copied = {"name": SOME_IMAGE, "source": "copy"}
    stack = Stack(tmp_path, "stores", pair, engine="sglang", image=copied)
    try:
        step("copied from the one store to the other")
        ids = serves_one_image(stack, SOME_IMAGE)
        assert ids[0] != ids[1]

        step("pulled: the same ids")
        # The name stands for it on both now: no Spark is told to remove an image that is right.
        stack.configure(engine="sglang", image={**copied, "source": "pull"})
        assert serves_one_image(stack, SOME_IMAGE) == ids
    finally:
        stack.destroy()

    step("copied back")
    sparks.on(pair[1], f"docker tag {SOME_IMAGE} {RENAMED}")
    folder = tmp_path / "back"
    folder.mkdir()
    back = Stack(folder, "back", pair[::-1], engine="sglang", image={**copied, "name": RENAMED})
    try:
        assert serves_one_image(back, RENAMED) == ids[::-1]
    finally:
        back.destroy()
        sparks.on(pair[0], f"docker rmi {RENAMED}")


SHARE = """
cd {hub} && mkdir -p blobs && echo 1 > blobs/.huggingface-shared-blobs
for blob in models--*/blobs/*; do
    [ $(stat -c %s $blob) -gt 1000000 ] || continue
    xet=$(echo $blob | sha256sum | cut -c 1-64); prefix=$(echo $xet | cut -c 1-2)
    mkdir -p blobs/$prefix && mv $blob blobs/$prefix/$xet && chmod 444 blobs/$prefix/$xet
    echo $blob > blobs/$prefix/$xet.refs && touch blobs/$prefix/$xet.lock
    ln -s ../../blobs/$prefix/$xet $blob
done
"""
"""Turns a cache into the layout of huggingface_hub ≥ 1.32, whose names Xet gives, which the local hub has not.
Source: huggingface_hub 2.4, utils/_shared_blobs.py."""


def weights_sent():
    """How often the local hub has sent a file of weights."""
    return len(re.findall(rf"sent \d+ bytes of /{QWEN}/resolve/\S+\.safetensors", (RUN / "hub.log").read_text()))


def owners_download(spark, *, shared):
    """What the owner's own `hf download` leaves."""
    sparks.on(spark, f"rm -rf {CACHE}/hub")
    client = f'from huggingface_hub import snapshot_download as get; get("{QWEN}")'
    run = f"docker run --rm --network host --user $(id -u):$(id -g) --volume {CACHE}:/hf --entrypoint python3"
    environment = f"--env HF_HOME=/hf --env HOME=/tmp --env HF_ENDPOINT={simulation.HUB}"
    sparks.on(spark, f"mkdir -p {CACHE} && {run} {environment} {SOME_IMAGE} -c '{client}'")
    if shared:
        sparks.on(spark, SHARE.format(hub=f"{CACHE}/hub"))


@pytest.mark.parametrize(
    ("engine", "shared"),
    [
        pytest.param("sglang", True, id="sglang-new layout"),
        pytest.param("trtllm", False, id="trtllm-old layout", marks=pytest.mark.long),
        pytest.param("sglang", False, id="sglang-old layout", marks=pytest.mark.long),
        pytest.param("trtllm", True, id="trtllm-new layout", marks=pytest.mark.long),
    ],
)
def test_a_cache_that_the_owner_filled_is_taken_over_without_a_download(simulated, tmp_path, engine, shared):
    head, other = pair = simulated[:2]

    step("the owner downloads a model")
    owners_download(head, shared=shared)
    sparks.on(other, f"rm -rf {CACHE}/hub")
    begun = weights_sent()
    assert begun, "the owner's own download"
    kept = sparks.on(head, f"cd {CACHE}/hub && find . -name '*.lock' -prune -o -printf '%p %l %s %T@\n' | sort")
    serving = {"launcher": "mpi"} if engine == "trtllm" else {}
    stack = Stack(tmp_path, "owned", pair, engine=engine, model="qwen2.5-7b", serving=serving)
    try:
        step("served from it")
        stack.up()
        assert stack.complete()["choices"]
        assert stack.is_clean()
        assert weights_sent() == begun
        links = sparks.on(other, f"find {CACHE}/hub -xtype l")
        assert links == "", "a copy with links that lead nowhere"
    finally:
        stack.destroy()

    step("it stays as it was")
    # It is the owner's, and stays as it was.
    assert sparks.on(head, f"cd {CACHE}/hub && find . -name '*.lock' -prune -o -printf '%p %l %s %T@\n' | sort") == kept
