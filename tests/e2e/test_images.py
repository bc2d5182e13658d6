"""The same image on every Spark: copied from the head over the fabric, built there, or completed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.plan.engines import trtllm
from simulator import sparks
from tests.e2e.conftest import SOME_IMAGE, Stack, left_behind, step

pytestmark = pytest.mark.e2e

SMALL = Path(__file__).parent / "small.Dockerfile"
TRTLLM = trtllm.IMAGE.partition("@")[0]
FABRIC = "enp1s0f1np1"
TAGGED = "registry.example/engine:1"


def image_of(spark, stack):
    return sparks.on(spark, f"docker inspect --format '{{{{.Image}}}}' {stack.container('server')}").strip()


def bytes_sent(spark, interface):
    return int(sparks.on(spark, f"cat /sys/class/net/{interface}/statistics/tx_bytes"))


@pytest.mark.long
def test_an_image_is_streamed_from_the_head_over_the_fabric(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]

    step("an image that the head alone has, with no layer of another one")
    show = "docker image inspect --format '{{range .Config.Env}}--change \"ENV {{.}}\" {{end}}'"
    make = f"docker export $id | eval docker import $({show} {TRTLLM}) - {TAGGED}"
    sparks.on(pair[0], f"id=$(docker create {TRTLLM} true) && {make} && docker rm $id")
    config = {"engine": "trtllm", "serving": {"launcher": "mpi"}, "image": {"name": TAGGED, "source": "copy"}}
    stack = Stack(tmp_path, "copied", pair, **config)
    sent = [bytes_sent(pair[0], interface) for interface in (FABRIC, "enP7s7")]
    try:
        step("streamed over the fabric, and an answer")
        stack.up()
        fabric, ethernet = (bytes_sent(pair[0], i) - b for i, b in zip((FABRIC, "enP7s7"), sent, strict=True))
        assert fabric > 50e6 > 10 * ethernet
        assert len({image_of(spark, stack) for spark in pair}) == 1
        assert stack.complete()["choices"]
        assert stack.is_clean()

        step("removed on one Spark: streamed again")
        sparks.on(pair[1], f"docker rm -f {stack.container('server')}; docker rmi -f {TAGGED}")
        assert stack.preview()["cluster-image-copy-spark-2"] == "replace"
        stack.up()
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
        for spark in pair:
            sparks.on(spark, f"docker rmi {TAGGED}", check=False)
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_an_image_is_built_on_the_head_and_streamed(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    image = {"source": "build", "dockerfile": str(SMALL), "buildArgs": {"VLLM_REF": "v0.19.0"}}
    stack = Stack(tmp_path, "built", pair, engine="sglang", image=image)
    server = stack.container("server")
    try:
        step("built, and the same on both")
        stack.up()
        assert len({image_of(spark, stack) for spark in pair}) == 1
        assert {sparks.on(spark, f"docker exec {server} cat /etc/built-from") for spark in pair} == {"v0.19.0\n"}
        assert stack.is_clean()

        step("another version: built anew, and its own layer alone is sent")
        stack.configure(engine="sglang", image={**image, "buildArgs": {"VLLM_REF": "v0.20.0"}})
        assert {"cluster-image-build", "cluster-image-copy-spark-2", "cluster-server-spark-1"} <= set(stack.preview())
        before_it = bytes_sent(pair[0], FABRIC)
        stack.up()
        assert bytes_sent(pair[0], FABRIC) - before_it < 5e6
        assert {sparks.on(spark, f"docker exec {server} cat /etc/built-from") for spark in pair} == {"v0.20.0\n"}
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_a_build_that_fails_says_why(alone, tmp_path):
    broken = tmp_path / "broken.Dockerfile"
    broken.write_text(f"FROM {SOME_IMAGE}\nRUN echo no such compiler >&2; exit 7\n")
    alone.configure(engine="sglang", image={"source": "build", "dockerfile": str(broken)})
    failed = alone.up(check=False)
    assert failed.code != 0
    assert "no such compiler" in failed.text
    assert "Traceback" not in failed.text


@pytest.mark.long
def test_sshd_is_added_to_an_image_without_it(simulated, tmp_path):
    config = {"engine": "trtllm", "serving": {"launcher": "mpi"}, "image": {"name": "simulated/trtllm:without-sshd"}}
    stack = Stack(tmp_path, "completed", simulated[:2], **config)
    stack.serves_and_goes()
