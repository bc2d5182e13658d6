"""How an engine reads a model's weights: as configured, else as the catalog knows; and what has been reported of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.facts.hub import File
from components.problems import Refused
from tests.unit.build import MODEL, ON_RAY, plan, settings

FAST = "Qwen/Qwen3-Coder-Next-FP8"
"""For which the catalog has fastsafetensors, with vLLM's own image."""


def words(**config):
    made = plan(settings(**config), model=replace(MODEL, repo=config.get("model", MODEL.repo)))
    return made.ranks[0].command, made.ranks[1].command


@pytest.mark.parametrize(
    ("engine", "loader", "option"),
    [
        ("vllm", "instanttensor", "--load-format=instanttensor"),
        ("vllm", "prefetch", "--safetensors-load-strategy=prefetch"),
        ("sglang", "runai_streamer", "--load-format=runai_streamer"),
        ("sglang", "prefetch", "--weight-loader-prefetch-checkpoints"),
    ],
)
def test_each_engine_is_told_in_its_own_words_on_every_rank(engine, loader, option):
    assert all(option in rank for rank in words(engine=engine, serving={"loader": loader}))


def test_the_catalogs_loader_is_the_default_and_auto_is_the_engines_own():
    assert "--load-format=fastsafetensors" in words(model=FAST)[0]
    assert "--load-format=instanttensor" in words(model=FAST, serving={"loader": "instanttensor"})[0]
    assert not any("load-format" in word for word in words(model=FAST, serving={"loader": "auto"})[0])


def test_no_loader_is_the_default_where_somebody_saw_it_fail():
    assert not any("load-format" in word for word in words(model="QuantTrio/MiniMax-M2-AWQ")[0])


def test_tensorrt_llm_has_no_such_option():
    with pytest.raises(Refused, match="trtllm-serve has no such option"):
        plan(settings(engine="trtllm", serving={"loader": "prefetch"}))


def warned(model=MODEL, **config):
    return [
        problem.wrong for problem in plan(settings(**config), model=model).warnings if problem.at == "serving.loader"
    ]


def test_what_is_known_to_fail_is_said_beforehand():
    fast = {"loader": "fastsafetensors"}
    # Of 128 GB: 65 GB over two Sparks, and 210 GB.
    large = replace(MODEL, files=(File("model.safetensors", 210 * 10**9, None),))
    assert warned(serving=fast) == []
    assert "most of a Spark's memory" in warned(large, serving={**fast, "checkFit": False})[0]
    gemma = replace(MODEL, config={**MODEL.config, "model_type": "gemma4"})
    assert "Gemma 4" in warned(gemma, serving=fast)[0]
    assert warned(gemma, serving={"loader": "instanttensor"}) == []
    assert "under Ray" in warned(serving={"loader": "runai_streamer", **ON_RAY})[0]
    assert warned(serving={"loader": "runai_streamer"}) == []
