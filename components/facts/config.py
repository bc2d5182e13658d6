"""How a config.json is read: by the names of the transformers library, and whatever stands in it. Pure.

Nothing here raises: what is missing or of another form counts as not said. Source of the names: vLLM 0.31,
transformers_utils/model_arch_config_convertor.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

NESTED = ("thinker_config", "text_config", "llm_config", "language_config", "language_model_config", "text_model")
"""Where models with vision or speech keep what is said of the text. Source: transformers, get_text_config; vLLM,
transformers_utils/config.py."""

HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
WIDTH = ("hidden_size", "n_embd", "d_model")
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
ATTENTION = ("layer_types", "layers_block_type", "hybrid_override_pattern", "hybrid_layer_pattern")
"""Keys that name each layer's kind."""


def text_of(config: Config) -> Config:
    """The part that describes the language model."""
    found = config
    # A thinker's text_config is two deep; more is no model's.
    for _ in range(3):
        found = next((part for key in NESTED if _is_deeper(part := table(found, key), found)), found)
    return found


def _is_deeper(part: Config, around: Config) -> bool:
    """It says how the model is built, or nothing around it does."""
    words = {*HEADS, *LAYERS, *ATTENTION}
    return bool(part) and bool({*words, *NESTED} & {*part} or not words & {*around})


def first_number(text: Config, *names: str) -> int | None:
    """The first of these that is a positive whole number."""
    return next((found for name in names if (found := whole(text.get(name))) is not None), None)


def whole(value: object) -> int | None:
    """A positive whole number, also as a float, or as the only one in a list (Ernie has a count per modality)."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return whole(value[0]) if value.count(value[0]) == len(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < 1 << 53 and value == int(value) else None


def table(text: Config, name: str) -> Config:
    """A table in the table; empty where there is none."""
    found = text.get(name)
    return found if isinstance(found, Mapping) else {}


def listed(text: Config, name: str) -> tuple[Any, ...]:
    """A list, or a word's letters."""
    found = text.get(name)
    return tuple(found) if isinstance(found, list | str) else ()


def layer_count(text: Config) -> int | None:
    """The number; models that name each layer's kind may leave it out."""
    named = (len(listed(text, key)) for key in ATTENTION)
    return first_number(text, *LAYERS) or next((count for count in named if count), None)
