"""What a model is made of, as far as serving it goes: read from its config.json the way the engines read it. Pure.

Whatever stands in a config.json, nothing here raises: what is missing or of another form counts as not said. What could
not be read, or has a meaning that is not known here, is named in `Geometry.doubts`; a plan that depends on it warns and
does not refuse.

Sources: vLLM 0.31, config/model.py (longest context) and v1/kv_cache_interface.py (bytes); SGLang 0.5,
srt/configs/model_config.py. tests/unit/geometries.yaml holds it against published configurations and against what
people measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.facts.config import (
    EXPERTS,
    HEADS,
    WIDTH,
    Config,
    first_number,
    layer_count,
    listed,
    table,
    text_of,
    whole,
)
from components.facts.layers import (
    BOTH,
    CONVOLUTION,
    ENCODERS,
    FULL,
    KNOWN,
    STATE_LAYER,
    TWO,
    WINDOW,
    convolution_of,
    heads_by_layer,
    kinds_of,
    kv_head_count,
    latent_size,
    state_of,
)


@dataclass(frozen=True)
class Cache:
    """Bytes of what the layers keep of each request, with 2-byte elements, for the whole model.

    They are the least that an engine needs: blocks that are rounded up, states that prefix caching keeps twice and
    what a window holds beyond itself during a prefill come on top.
    """

    kind: str
    """gqa: divided among tensor-parallel ranks as far as there are KV heads. mla, hybrid_mla: each rank holds all of
    it. sliding: beside it `per_sequence` for windows, which don't grow. hybrid, hybrid_mla: beside it `state`."""

    per_token: int
    per_sequence: int = 0
    """Of windows, in the cache's elements."""

    kv_heads: int = 1
    state: int = 0
    """Of linear attention and Mamba, per sequence: divided among the ranks, and no type of cache makes it smaller."""

    all_full: int | None = None
    """Per token, in an engine that keeps every token in layers with a window too; None: as `per_token`."""

    def of_rank(self, tokens: int, tensor: int, pipeline: int, element: float) -> float:
        """Bytes on one rank for one sequence of `tokens`; `element`: bytes per number over 2."""
        kept = (self.per_token * tokens + self.per_sequence) * self.share(tensor) * element
        return (kept + self.state / tensor) / pipeline

    def share(self, tensor: int) -> float:
        if self.kind in ("mla", "hybrid_mla"):
            return 1.0
        return math.ceil(self.kv_heads / tensor) / self.kv_heads

    def without_windows(self) -> Cache:
        """As an engine without pools of their own for layers with a window keeps it."""
        if self.all_full is None:
            return self
        return Cache(self.kind, self.all_full, 0, self.kv_heads, self.state)


@dataclass(frozen=True)
class Geometry:
    """What was read of a config.json. None: not said."""

    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    """None also where all heads share one latent vector (MLA)."""

    linear_heads: tuple[int, ...] = ()
    """Heads of linear attention and Mamba, which tensor parallelism divides too."""

    vocabulary: int | None = None
    intermediate: int | None = None
    """Width of what tensor parallelism divides of a feed-forward layer: of an expert, where there are experts."""

    experts: int = 0
    block: int | None = None
    """Side of the squares that share a scale in FP8 weights: each rank's part must hold whole ones."""

    longest: int | None = None
    """Tokens."""

    cache: Cache | None = None
    quantized: bool = False
    single: bool = False
    """The weights are in float32, of which engines load the half."""

    doubts: tuple[str, ...] = ()
    """What is not understood of the cache."""


def read(config: object) -> Geometry:
    """`config`: what a config.json says, whatever that is."""
    if not isinstance(config, Mapping):
        return Geometry(doubts=("its config.json is no JSON object",))
    text = text_of(config)
    experts = first_number(text, *EXPERTS) or _experts_of_blocks(text)
    cache, doubts, linear = _cache(text)
    return Geometry(
        layers=layer_count(text),
        heads=first_number(text, *HEADS),
        kv_heads=None if latent_size(text) else kv_head_count(text),
        linear_heads=linear,
        vocabulary=first_number(text, "vocab_size"),
        intermediate=first_number(text, *(["moe_intermediate_size"] if experts else []), "intermediate_size"),
        experts=experts or 0,
        block=_block(config) or _block(text),
        longest=_longest(text),
        cache=cache,
        quantized=_is_quantized(config, text),
        single=_is_single(config, text),
        doubts=doubts,
    )


def _experts_of_blocks(text: Config) -> int | None:
    """A NAS has as many as suited each layer."""
    found = [first_number(block, *EXPERTS) for block in listed(text, "block_configs") if isinstance(block, Mapping)]
    return max((experts for experts in found if experts), default=None)


def _block(config: Config) -> int | None:
    sides = listed(table(config, "quantization_config"), "weight_block_size")
    return whole(sides[0]) if sides else None


def _is_single(config: Config, text: Config) -> bool:
    words = [part.get(key) for part in (config, text) for key in ("torch_dtype", "dtype")]
    return "float32" in words and not _is_quantized(config, text)


def _is_quantized(config: Config, text: Config) -> bool:
    keys = ("quantization_config", "compression_config")
    return any(part.get(key) for part in (config, text) for key in keys)


def _cache(text: Config) -> tuple[Cache | None, tuple[str, ...], tuple[int, ...]]:
    """(what is kept, what of it is not understood, heads of the layers that keep a state)"""
    layers = layer_count(text)
    if not layers or layers > MANY:
        return None, ("its config.json names no number of layers",), ()
    if text.get("model_type") in ENCODERS:
        return Cache("none", 0), (), ()
    if ratios := listed(text, "compress_ratios"):
        return *_compressed(text, ratios[:layers]), ()
    kinds = kinds_of(text, layers)
    doubts = [f"its layers of the kind {kind} are not known here" for kind in sorted({*kinds} - KNOWN)]
    if len(kinds) + (first_number(text, "num_kv_shared_layers") or 0) < layers:
        doubts.append(f"it has {layers} layers and names the kind of {len(kinds)}")
    state, linear = state_of(text) if {STATE_LAYER, BOTH} & {*kinds} else (0, ())
    if state is None:
        doubts.append("its config.json does not say how large the state of its linear layers is")
    kept = _attention(text, kinds)
    if kept is None:
        doubts.append("its config.json does not say how many numbers its attention keeps per token")
        return None, tuple(doubts), linear
    states = sum(kind in (STATE_LAYER, BOTH) for kind in kinds) * (state or 0)
    states += kinds.count(CONVOLUTION) * convolution_of(text)
    return _summed(text, kept, states), tuple(doubts), linear


@dataclass(frozen=True)
class _Kept:
    """Bytes of all layers: per token, of windows per sequence, and per token where windows are no windows."""

    per_token: int
    windows: int
    all_full: int


def _summed(text: Config, kept: _Kept, states: int) -> Cache:
    latent = bool(latent_size(text))
    if latent:
        kind = "hybrid_mla" if states else "mla"
    else:
        kind = "hybrid" if states else "sliding" if kept.windows else "gqa"
    all_full = kept.all_full if kept.windows else None
    return Cache(kind, kept.per_token, kept.windows, 1 if latent else kv_head_count(text) or 1, states, all_full)


def _attention(text: Config, kinds: Sequence[str]) -> _Kept | None:
    """None where attention keeps something and nothing says how much."""
    full = [number for number, kind in enumerate(kinds) if kind in (FULL, BOTH)]
    sliding = [number for number, kind in enumerate(kinds) if kind == WINDOW]
    if not full and not sliding:
        return _Kept(0, 0, 0)
    if latent := latent_size(text):
        return _Kept(len(full) * latent * TWO + _index(text, len(full)), 0, 0)
    heads = heads_by_layer(text, len(kinds))
    wide, narrow = _vectors(text, windows=False), _vectors(text, windows=True)
    if heads is None or not wide or not narrow:
        return None
    overall = first_number(text, "num_global_key_value_heads")
    of_windows = first_number(text, "swa_num_key_value_heads")
    grows = sum((overall or heads[number]) * wide * TWO for number in full)
    slides = sum((of_windows or heads[number]) * narrow * TWO for number in sliding)
    window = first_number(text, "sliding_window") or first_number(text, "sliding_window_size") or 0
    return _Kept(grows, slides * window, grows + slides)


def _vectors(text: Config, *, windows: bool) -> int | None:
    """Numbers per head and token: of the key and of the value."""
    names = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")
    width = first_number(text, *(("swa_head_dim", *names) if windows else ("global_head_dim", *names)))
    if width is None:
        hidden, heads = first_number(text, *WIDTH), first_number(text, *HEADS)
        width = hidden // heads if hidden and heads else None
    value = first_number(text, "swa_v_head_dim", "v_head_dim") if windows else first_number(text, "v_head_dim")
    return width + (value or width) if width else None


def _index(text: Config, layers: int) -> int:
    """Bytes per token by which sparse attention finds its tokens: FP8 with a scale. Layers may share one; how it is
    kept where several tokens share one (index_kpool) is the engine's secret. Source: vLLM, DeepseekV32IndexerCache."""
    width = first_number(text, "index_head_dim")
    if not width or text.get("index_kpool"):
        return 0
    kinds = listed(text, "indexer_types")[:layers]
    return (width + 4) * (kinds.count("full") or layers)


def _compressed(text: Config, ratios: Sequence[Any]) -> tuple[Cache | None, tuple[str, ...]]:
    """DeepSeek-V4: each layer a window, and of every `ratio` tokens one; those of ratio 4 an index too."""
    width, window = first_number(text, "head_dim"), first_number(text, "sliding_window") or 0
    if not width:
        return None, ("its config.json does not say how many numbers its attention keeps per token",)
    counts = [whole(ratio) for ratio in ratios]
    grows = sum(width * TWO / count for count in counts if count)
    index = (first_number(text, "index_head_dim") or 0) * TWO * sum(1 / 4 for count in counts if count == 4)
    windows = len(counts) * window * width * TWO
    return Cache("mla", round(grows + index), windows), ()


MANY = 10_000
"""No model has as many layers: the number is garbage."""

LONGEST = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
"""The least of them counts. Source: vLLM, derive_max_model_len_and_key."""

COUNTED = ("su", "longrope", "llama3")
"""Kinds of rope scaling that max_position_embeddings counts already. Source: vLLM, _get_and_verify_max_len."""


def _longest(text: Config) -> int | None:
    """Tokens, with the model's own rope scaling: YaRN's factor is of the original length, others' of the named one."""
    if of_its_own := first_number(text, "model_max_length"):
        return of_its_own
    found = [length for key in LONGEST if (length := first_number(text, key))]
    if not found:
        return None
    named = min(found)
    if "gemma3" in str(text.get("model_type")):
        return named
    return max([named, *(_scaled(rope, named) for rope in _ropes(text))])


def _ropes(text: Config) -> Iterator[Config]:
    """The tables of rope scaling: one, or one per kind of layer."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = table(text, key)
        yield from (part for part in rope.values() if isinstance(part, Mapping))
        yield rope


def _scaled(rope: Config, named: int) -> int:
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if kind in COUNTED or isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < MANY:
        return named
    original = first_number(rope, "original_max_position_embeddings") or named
    return int((original if kind == "yarn" else named) * factor)
