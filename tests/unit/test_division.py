"""How a model is divided among Sparks, and what is said where it can't be."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies

from components.facts.geometry import Geometry
from components.plan.division import layouts, obstacles
from components.problems import Refused
from tests.unit.build import MODEL, plan, settings

LAYERS = {"num_hidden_layers": 4, "head_dim": 128, "max_position_embeddings": 4096}


def model(**config):
    return replace(MODEL, repo="a/b", config={**LAYERS, **config})


def layout(sparks, engine="vllm", **config):
    command = plan(settings(sparks, engine=engine, model="a/b"), model=model(**config)).ranks[0].command
    return tuple(
        int(word.split("=")[1]) for word in command if "tensor-parallel" in word or "pipeline-parallel" in word
    )


def refusal(sparks, serving, engine="vllm", **config):
    with pytest.raises(Refused) as caught:
        plan(settings(sparks, engine=engine, model="a/b", serving=serving), model=model(**config))
    return str(caught.value)


@pytest.mark.parametrize(
    ("sparks", "config", "expected"),
    [
        # MiniMax-M2: 3 divides 48 heads, and not the 8 that have keys and values.
        (3, {"num_attention_heads": 48, "num_key_value_heads": 8}, (1, 3)),
        # phi-4: 4 divides 40 heads and not 10; 2 divides both.
        (4, {"num_attention_heads": 40, "num_key_value_heads": 10}, (2, 2)),
        # Fewer KV heads than Sparks: each rank has a copy of one.
        (4, {"num_attention_heads": 32, "num_key_value_heads": 2}, (4, 1)),
        # One latent vector for all heads is no KV head.
        (3, {"num_attention_heads": 48, "num_key_value_heads": 8, "kv_lora_rank": 512}, (3, 1)),
        # vLLM rounds the vocabulary up to 64 and divides that: 151,936 is no multiple of 3, 128,256 is.
        (3, {"num_attention_heads": 48, "num_key_value_heads": 3, "vocab_size": 151936}, (1, 3)),
        (3, {"num_attention_heads": 48, "num_key_value_heads": 3, "vocab_size": 128256}, (3, 1)),
        # Qwen3.5-27B on three: 24 heads and 48 value heads, but 16 key heads of linear attention.
        (
            3,
            {"num_attention_heads": 24, "num_key_value_heads": 3, "full_attention_interval": 4,
             "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_key_head_dim": 128,
             "linear_value_head_dim": 128},
            (1, 3),
        ),
    ],
)  # fmt: skip
def test_as_much_tensor_parallel_as_the_model_can_be_divided(sparks, config, expected):
    assert layout(sparks, **config) == expected


def test_a_layout_by_hand_that_can_not_start_is_refused_with_those_that_can():
    heads = {"num_attention_heads": 40, "num_key_value_heads": 10}
    text = refusal(4, {"tensorParallel": 4}, **heads)
    assert "a/b has 10 key-value heads, which 4 neither divides nor is a multiple of" in text
    assert "set tensorParallel 2 with pipelineParallel 2 or tensorParallel 1 with pipelineParallel 4" in text
    by_hand = {"tensorParallel": 4, "checkFit": False}
    made = plan(settings(4, model="a/b", serving=by_hand), model=model(**heads))
    assert "10 key-value heads" in made.warnings[0].wrong


def test_what_may_not_be_divisible_warns():
    wide = {"num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 11006}
    (warning,) = plan(settings(4, model="a/b"), model=model(**wide)).warnings
    assert "feed-forward layers of width 11006, which 4 does not divide" in warning.wrong
    # Qwen3-30B-A3B-FP8 on four: 768 / 4 = 192 numbers per rank, and a scale for each 128.
    scaled = {
        "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 128, "moe_intermediate_size": 768,
        "quantization_config": {"weight_block_size": [128, 128]},
    }  # fmt: skip
    (warning,) = plan(settings(4, model="a/b"), model=model(**scaled)).warnings
    assert "FP8 scales for 128 numbers each" in warning.wrong
    assert "serving.expertParallel true" in warning.fix
    assert plan(settings(4, model="a/b", serving={"expertParallel": True}), model=model(**scaled)).warnings == ()


MIXTURE = {"num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 128, "moe_intermediate_size": 1024}


@pytest.mark.parametrize(
    ("engine", "word"), [("vllm", "--enable-expert-parallel"), ("sglang", "--ep-size=4"), ("trtllm", "--ep_size=4")]
)
def test_experts_are_divided_on_every_engine_that_is_told_to(engine, word):
    def commands(**serving):
        made = plan(settings(4, engine=engine, model="a/b", serving=serving), model=model(**MIXTURE))
        return [word for rank in made.ranks for word in rank.command]

    assert word in commands(expertParallel=True)
    assert word not in commands()
    assert word not in commands(expertParallel=False)


def test_experts_that_are_none_or_can_not_be_divided_are_refused():
    dense = {"num_attention_heads": 32, "num_key_value_heads": 4}
    for engine in ("vllm", "sglang", "trtllm"):
        assert "serving.expertParallel: a/b has no experts" in refusal(2, {"expertParallel": True}, engine, **dense)
    odd = {**MIXTURE, "num_experts": 126}
    for engine in ("sglang", "trtllm"):
        text = refusal(4, {"expertParallel": True}, engine, **odd)
        assert f"a/b has 126 experts, and {engine} gives each of 4 Sparks as many" in text
    # vLLM gives the last rank what is left over.
    plan(settings(4, model="a/b", serving={"expertParallel": True}), model=model(**odd))


numbers = strategies.none() | strategies.integers(1, 200)


@given(
    heads=numbers, kv_heads=numbers, vocabulary=numbers, linear=strategies.tuples(strategies.integers(1, 64)),
    gpus=strategies.integers(1, 12), engine=strategies.sampled_from(["vllm", "sglang", "trtllm"]),
)  # fmt: skip
def test_there_is_always_a_layout_and_it_has_no_obstacle(heads, kv_heads, vocabulary, linear, gpus, engine):
    geometry = Geometry(heads=heads, kv_heads=kv_heads, vocabulary=vocabulary, linear_heads=linear)
    found = layouts(geometry, gpus, engine)
    assert found[-1] == (1, gpus)
    for tensor, pipeline in found:
        assert tensor * pipeline == gpus
        assert not list(obstacles(geometry, tensor, engine))
