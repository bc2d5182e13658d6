"""One Spark without Ray, three with pipeline parallel, and an image that lacks Ray."""

from __future__ import annotations

import pytest

from simulator import sparks
from tests.e2e.conftest import Stack, left_behind, on_rdma, step

pytestmark = pytest.mark.e2e


def test_one_spark(alone, third):
    before = left_behind(third)

    step("up, and an answer")
    alone.up()
    assert alone.complete()["choices"]
    assert "ray" not in sparks.on(third, "docker ps --format '{{.Names}}'")
    assert alone.is_clean()

    step("nothing is left behind")
    alone.destroy()
    assert left_behind(third) == before


@pytest.mark.long
def test_three_sparks(simulated, third, tmp_path):
    stack = Stack(tmp_path, "three", simulated)
    try:
        stack.up()
        assert stack.complete()["choices"]
        log = sparks.on(simulated[0], f"docker logs {stack.container('server')} 2>&1")
        assert on_rdma(log) == {"spark-1", "spark-2", "spark-3"}
        assert stack.is_clean()
    finally:
        stack.destroy()


@pytest.mark.long
def test_an_image_without_ray_gets_it_on_every_spark(simulated, tmp_path):
    stack = Stack(tmp_path, "derived", simulated[:2], image={"name": "simulated/vllm:without-ray"})
    stack.serves_and_goes()


@pytest.mark.long
def test_weights_go_too_where_config_says_so(alone, third):
    alone.configure(weights={"keep": False}, model="Qwen/Qwen2.5-7B-Instruct")
    alone.up()
    alone.destroy()
    assert "Qwen2.5-7B" not in sparks.on(third, "ls ~/.cache/huggingface/hub")
