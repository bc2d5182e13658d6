"""What is read of a config.json: against real models, against what people measured, and against garbage."""

from math import ceil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies

from components.facts.geometry import Cache, Geometry, read
from components.plan.fit import GIB, Load, estimate
from tests.examples import some

ROWS = yaml.safe_load((Path(__file__).parent / "geometries.yaml").read_text())
NAMES = [row["model"] for row in ROWS]
MEASURED = [(row, one) for row in ROWS for one in row.get("measured", ())]


def written(value):
    """A row's config as the file has it: lists of one item per layer, which the table abbreviates."""
    if isinstance(value, dict) and "repeat" in value:
        return value["repeat"] * value["times"]
    if isinstance(value, dict) and "runs" in value:
        return [item for count, item in value["runs"] for _ in range(count)]
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    return value


def geometry_of(row):
    return read(written(row["config"]))


def load(row, sparks, engine="vllm"):
    """As a stack without a setting of its own: tensor parallel, as far as the heads can be divided."""
    found = geometry_of(row)
    tensor = sparks if found.heads % sparks == 0 else 1
    return Load(engine, int(row["weights_gb"] * 1e9), found.cache, tensor, sparks // tensor, 8192, None, 0.9)


def test_the_table_is_as_large_as_it_should_be():
    assert len(ROWS) >= 40
    assert len(set(NAMES)) == len(NAMES)
    assert len({row["model"] for row, _ in MEASURED}) >= 10


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_models_cache_is_what_its_shapes_give_by_hand(row):
    found = geometry_of(row)
    cache = found.cache
    assert found.doubts == ()
    assert (cache.per_token, cache.per_sequence, cache.state) == (
        row["per_token"], row.get("per_sequence", 0), row.get("state", 0),
    )  # fmt: skip
    assert found.kv_heads == row.get("kv_heads")
    assert found.longest == row["longest"]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_model_fits_on_as_many_sparks_as_by_hand_and_where_people_run_it(row):
    fitting = [sparks for sparks in (1, 2, 3, 4) if estimate(load(row, sparks)).fits]
    assert (fitting or [None])[0] == row["sparks"]
    assert set(row.get("ran", ())) <= set(fitting)


@pytest.mark.parametrize(("row", "one"), MEASURED, ids=[f"{row['model']}: {one['what']}" for row, one in MEASURED])
def test_a_models_cache_is_what_an_engine_reported(row, one):
    cache = geometry_of(row).cache
    if "state_mib" in one:
        assert cache.state / 2**20 == pytest.approx(one["state_mib"], rel=0.001)
        return
    ours = cache.of_rank(one["tokens"], one["ranks"], 1, 1.0)
    # Windows and states are not in what they report per token.
    fixed = cache.of_rank(0, one["ranks"], 1, 1.0)
    assert (ours - fixed) / GIB == pytest.approx(one["gib"], rel=0.006)


LLAMA = {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2}
PER_LAYER = 2 * 2 * 64 * 2
"""Bytes per token: 2 heads, key and value, 64 numbers, 2 bytes."""


@pytest.mark.parametrize(
    ("config", "cache"),
    [
        (LLAMA, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        ({**LLAMA, "num_key_value_heads": None}, Cache("gqa", 16 * PER_LAYER, 0, 8)),
        ({"llm_config": LLAMA, "vision_config": {"num_hidden_layers": 40}}, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        ({"thinker_config": {"text_config": LLAMA}, "talker_config": {}}, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        # Nothing is kept of layers that reuse another's.
        (
            {**LLAMA, "num_kv_shared_layers": 1, "layer_types": ["sliding_attention", "full_attention"] * 2,
             "sliding_window": 10},
            Cache("sliding", PER_LAYER, 2 * 10 * PER_LAYER, 2, 0, 3 * PER_LAYER),
        ),
        # The kinds of multi-token prediction's layers stand behind the model's own.
        ({**LLAMA, "layer_types": ["full_attention"] * 6}, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        ({**LLAMA, "num_key_value_heads": [1, 1, 2, 4]}, Cache("gqa", 4 * PER_LAYER, 0, 4)),
        # A window as long as the longest text is none.
        ({**LLAMA, "sliding_window": 4096, "max_position_embeddings": 4096}, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        (
            {**LLAMA, "sliding_window": 16, "max_position_embeddings": 4096},
            Cache("sliding", 0, 4 * 16 * PER_LAYER, 2, 0, 4 * PER_LAYER),
        ),
        ({**LLAMA, "sliding_window": 16, "use_sliding_window": False}, Cache("gqa", 4 * PER_LAYER, 0, 2)),
        (
            {**LLAMA, "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 3},
            Cache("sliding", 3 * PER_LAYER, 16 * PER_LAYER, 2, 0, 4 * PER_LAYER),
        ),
        (
            {**LLAMA, "sliding_window": 16, "sliding_window_pattern": "LLG"},
            Cache("sliding", PER_LAYER, 3 * 16 * PER_LAYER, 2, 0, 4 * PER_LAYER),
        ),
        # Granite: Mamba-2 with 8 heads of 128 numbers (twice the width), 16 states each, 4 bytes; 3 convolved numbers.
        (
            {**LLAMA, "layer_types": ["mamba", "mamba", "mamba", "attention"], "mamba_n_heads": 8,
             "mamba_d_head": "auto", "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2},
            Cache("hybrid", PER_LAYER, 0, 2, 3 * (8 * 128 * 16 * 4 + (1024 + 32) * 3 * 2)),
        ),
        # LFM2: two numbers of each channel.
        (
            {**LLAMA, "layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3},
            Cache("hybrid", 2 * PER_LAYER, 0, 2, 2 * 512 * 2 * 2),
        ),
        # Jamba: the first Mamba has no heads.
        (
            {**LLAMA, "attn_layer_period": 4, "attn_layer_offset": 1, "mamba_d_state": 16, "mamba_expand": 2},
            Cache("hybrid", PER_LAYER, 0, 2, 3 * (1024 * 16 * 4 + 1024 * 3 * 2)),
        ),
        # A NAS of four: heads in groups of 4, a window, a layer without attention, heads in groups of 8.
        (
            {**LLAMA, "num_key_value_heads": None, "sliding_window": 8, "block_configs": [
                {"attention": {"n_heads_in_group": 4}},
                {"attention": {"n_heads_in_group": 4, "window_length": 8}},
                {"attention": {"no_op": True, "n_heads_in_group": None}},
                {"attention": {"n_heads_in_group": 8}},
            ]},
            Cache("sliding", PER_LAYER + PER_LAYER // 2, 8 * PER_LAYER, 2, 0, 2 * PER_LAYER + PER_LAYER // 2),
        ),
        # What reads its text at once keeps nothing.
        ({**LLAMA, "model_type": "xlm-roberta"}, Cache("none", 0)),
    ],
)  # fmt: skip
def test_each_kind_of_layer_keeps_its_own(config, cache):
    assert read(config).cache == cache
    assert read(config).doubts == ()


@pytest.mark.parametrize(
    ("config", "doubt"),
    [
        ({}, "names no number of layers"),
        ([1], "is no JSON object"),
        ({"num_hidden_layers": 4}, "how many numbers its attention keeps"),
        ({**LLAMA, "layer_types": ["full_attention", "telepathy"] * 2}, "layers of the kind telepathy are not known"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "has 4 layers and names the kind of 1"),
        ({**LLAMA, "layer_types": ["linear_attention"] * 4}, "how large the state of its linear layers is"),
        ({**LLAMA, "num_hidden_layers": 10**12}, "names no number of layers"),
    ],
)
def test_what_is_not_understood_is_said(config, doubt):
    assert doubt in "; ".join(read(config).doubts)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"n_positions": 1024}, 1024),
        # YaRN's factor is of the original length, whatever stands beside it.
        ({"max_position_embeddings": 40960,
          "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072),
        ({"max_position_embeddings": 163840,
          "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}}, 163840),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4}}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 8}}, 32768),
        # Counted already.
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "factor": 32}}, 131072),
        ({"model_type": "gemma3_text", "max_position_embeddings": 131072,
          "rope_scaling": {"rope_type": "linear", "factor": 8}}, 131072),
        # A table per kind of layer.
        ({"max_position_embeddings": 1000, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2},
            "sliding_attention": {"rope_type": "default"}}}, 2000),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ({"max_position_embeddings": "long"}, None),
    ],
)  # fmt: skip
def test_the_longest_context_is_that_of_the_models_own_rope_scaling(config, longest):
    assert read(config).longest == longest


def test_every_rank_holds_a_latent_cache_whole_and_its_part_of_the_states():
    both = Cache("hybrid_mla", 100, 0, 1, 4000)
    assert both.of_rank(10, 1, 1, 1.0) == 5000
    assert both.of_rank(10, 4, 1, 1.0) == 1000 + 1000
    # An 8-bit cache makes no state smaller.
    assert both.of_rank(10, 4, 1, 0.5) == 500 + 1000
    assert both.of_rank(10, 1, 2, 1.0) == 2500


def test_an_engine_without_windows_keeps_every_token():
    windows = Cache("sliding", 10, 500, 2, 0, 30)
    assert windows.without_windows() == Cache("sliding", 30, 0, 2)
    assert Cache("gqa", 10).without_windows() == Cache("gqa", 10)


SHORT = strategies.text(max_size=8)
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | SHORT,
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(SHORT, inner),
    max_leaves=12,
)
WORDS = sorted(
    {key for row in ROWS for part in (row["config"], row["config"].get("text_config", {})) for key in part}
    | {
        "thinker_config", "llm_config", "attn_type_list", "attn_layer_period", "attn_layer_offset", "conv_L_cache",
        "sliding_window_pattern", "mamba_d_state", "mamba_expand", "num_experts", "attn_config", "model_max_length",
    }
)  # fmt: skip


@settings(max_examples=some(400))
@given(config=JSON | strategies.dictionaries(strategies.sampled_from(WORDS), JSON, max_size=12))
def test_no_config_crashes_whatever_stands_in_it(config):
    found = read(config)
    assert isinstance(found, Geometry)
    assert found.cache or found.doubts
    if found.cache:
        assert found.cache.of_rank(1000, 2, 1, 1.0) >= 0


@settings(max_examples=some(300))
@given(row=strategies.sampled_from(ROWS), data=strategies.data())
def test_no_real_config_crashes_with_a_value_of_another_form(row, data):
    config = written(row["config"])
    inner = config.get("text_config", config)
    key = data.draw(strategies.sampled_from(sorted(inner)))
    inner[key] = data.draw(JSON)
    found = read(config)
    assert found.cache or found.doubts


@given(
    layers=strategies.integers(1, 200), heads=strategies.integers(1, 128),
    width=strategies.sampled_from([64, 128, 256]), tensor=strategies.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_a_rank_holds_its_part_of_the_heads(layers, heads, width, tensor):
    cache = read(
        {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width}
    ).cache
    assert cache.of_rank(1, tensor, 1, 1.0) == pytest.approx(layers * ceil(heads / tensor) * 2 * width * 2)
