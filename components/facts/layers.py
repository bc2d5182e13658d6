"""Which kind of layer each of a model's layers is, and how many heads and how large a state it has. Pure.

Sources: vLLM 0.31, config/model.py (layers by kind) and model_executor/layers/mamba/mamba_utils.py (states); SGLang
0.5, srt/configs/model_config.py and mamba_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.facts.config import HEADS, KV_HEADS, WIDTH, Config, first_number, listed, table, whole

TWO = 2
"""Bytes of an element of the cache, unless its type is set."""

STATE = {"float32": 4, "float": 4, "float16": 2, "bfloat16": 2}
"""Bytes of an element of a linear-attention or Mamba state, by its type's name; float32 where none is named."""

FULL, WINDOW, STATE_LAYER, CONVOLUTION, NOTHING, BOTH = "full", "window", "state", "convolution", "nothing", "both"

KINDS = {
    "full_attention": FULL, "attention": FULL, "full": FULL, "global": FULL, "global_attention": FULL, "*": FULL,
    # vLLM and SGLang keep every token of these, too.
    "chunked_attention": FULL, "deepseek_sparse_attention": FULL, "sparse_attention": FULL,
    "sliding_attention": WINDOW, "sliding": WINDOW, "local": WINDOW, "local_attention": WINDOW, "swa": WINDOW,
    "linear_attention": STATE_LAYER, "mamba": STATE_LAYER, "mamba2": STATE_LAYER, "kda": STATE_LAYER, "M": STATE_LAYER,
    "gated_delta_net": STATE_LAYER, "conv": CONVOLUTION, "hybrid": BOTH,
    "moe": NOTHING, "mlp": NOTHING, "ffn": NOTHING, "-": NOTHING, "E": NOTHING,
}  # fmt: skip
"""What configurations call a layer, or the letter in Nemotron-H's pattern."""

ENCODERS = (
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "electra", "mpnet", "deberta-v2",
    "nomic_bert", "new", "gte",
)  # fmt: skip
"""Models that read a text at once and keep nothing of it."""

PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
"""Model type → every how many layers one attends to all tokens, where older configurations leave it out.
Source: transformers, the models' own defaults."""

MAMBA = ("mamba", "mamba2", "falcon_mamba", "codestral_mamba")


def _blocks(text: Config) -> list[tuple[str, int]]:
    """A NAS's layers: (kind, KV heads). Source: nvidia/Llama-3_3-Nemotron-Super-49B-v1, block_configs."""
    blocks = [block for block in listed(text, "block_configs") if isinstance(block, Mapping)]
    found = [_block(text, table(block, "attention")) for block in blocks]
    return found if any("attention" in block for block in blocks) else []


def _block(text: Config, attention: Config) -> tuple[str, int]:
    if not attention or attention.get("no_op") is True or attention.get("replace_with_linear") is True:
        return NOTHING, 0
    per_group, heads = first_number(attention, "n_heads_in_group"), first_number(text, *HEADS)
    shared = heads // per_group if heads and per_group else first_number(attention, "num_key_value_heads")
    return WINDOW if first_number(attention, "window_length") else FULL, shared or heads or 0


def kinds_of(text: Config, layers: int) -> list[str]:
    """One word per layer, of KINDS or, where it is none, the configuration's own."""
    named = _named(text) or _by_rule(text, layers)
    shared = first_number(text, "num_kv_shared_layers") or 0
    # Behind the model's own layers may stand those of multi-token prediction; the last ones may use others' cache.
    own = named[:layers]
    return own[: max(0, layers - shared)] if shared else own


def _named(text: Config) -> list[str]:
    if blocks := _blocks(text):
        return [kind for kind, _ in blocks]
    for key in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        if words := listed(text, key):
            return [KINDS.get(word, str(word)) if isinstance(word, str) else repr(word) for word in words]
    typed = [block.get("block_type") for block in listed(text, "block_configs") if isinstance(block, Mapping)]
    if any(typed):
        return [KINDS.get(str(word), str(word)) for word in typed]
    if pattern := listed(text, "hybrid_layer_pattern"):
        # MiMo-V2: 1 for a window.
        return [WINDOW if word == 1 else FULL for word in pattern]
    # MiniMax-Text-01: 1 for attention, 0 for its own linear one.
    return [FULL if word == 1 else STATE_LAYER for word in listed(text, "attn_type_list")]


def _by_rule(text: Config, layers: int) -> list[str]:
    """Where no list says it."""
    linear = table(text, "linear_attn_config")
    if full := listed(linear, "full_attn_layers"):
        count = min(len(full), layers)
        return [FULL] * count + [STATE_LAYER] * (layers - count)
    if every := first_number(text, "full_attention_interval"):
        return [FULL if (number + 1) % every == 0 else STATE_LAYER for number in range(layers)]
    if every := first_number(text, "attn_layer_period"):
        first = text.get("attn_layer_offset")
        first = first if isinstance(first, int) else 0
        return [FULL if number % every == first else STATE_LAYER for number in range(layers)]
    if text.get("model_type") in MAMBA:
        return [STATE_LAYER] * layers
    if text.get("model_type") == "falcon_h1":
        return [BOTH] * layers
    return _windows(text, layers)


def _windows(text: Config, layers: int) -> list[str]:
    window, longest = first_number(text, "sliding_window"), first_number(text, "max_position_embeddings")
    if not window or text.get("use_sliding_window") is False or (longest and window >= longest):
        return [FULL] * layers
    if text.get("use_sliding_window") is True:
        first = first_number(text, "max_window_layers") or 0
        return [FULL if number < first else WINDOW for number in range(layers)]
    if letters := listed(text, "sliding_window_pattern"):
        # EXAONE writes LLLG.
        return [FULL if letters[number % len(letters)] == "G" else WINDOW for number in range(layers)]
    every = first_number(text, "sliding_window_pattern") or PATTERNS.get(str(text.get("model_type")))
    if every:
        return [FULL if (number + 1) % every == 0 else WINDOW for number in range(layers)]
    return [WINDOW] * layers


KNOWN = {*KINDS.values()}


def latent_size(text: Config) -> int | None:
    """Numbers per token and layer where all heads share one vector: multi-head latent attention, DeepSeek's V4."""
    if listed(text, "compress_ratios"):
        return first_number(text, "head_dim")
    rank = first_number(text, "kv_lora_rank")
    return rank + (first_number(text, "qk_rope_head_dim") or 0) if rank else None


def kv_head_count(text: Config) -> int | None:
    """As many as attention heads, where nothing else is said; the most that one layer has, where they differ."""
    counted = [heads for key in (*KV_HEADS, "num_key_value_heads_per_layer") for heads in map(whole, listed(text, key))]
    of_blocks = [heads for _, heads in _blocks(text)]
    counts = [heads for heads in (*counted, *of_blocks) if heads]
    # Falcon's first design had one, whatever else stands there.
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1
    inside = first_number(table(text, "attn_config"), "kv_n_heads")
    return first_number(text, *KV_HEADS) or max(counts, default=None) or inside or first_number(text, *HEADS)


def heads_by_layer(text: Config, count: int) -> list[int] | None:
    """KV heads of each layer."""
    if blocks := _blocks(text):
        return [heads for _, heads in blocks]
    for key in (*KV_HEADS, "num_key_value_heads_per_layer"):
        found = [whole(heads) or 0 for heads in listed(text, key)]
        if len(found) >= count and any(found):
            return found
    heads = kv_head_count(text)
    return [heads] * count if heads else None


def state_of(text: Config) -> tuple[int | None, tuple[int, ...]]:
    """(bytes per sequence and layer, heads) of linear attention or Mamba; (None, ()) where too little is said.

    Sources: vLLM, MambaStateShapeCalculator; SGLang, configs/mamba_utils.py.
    """
    linear = table(text, "linear_attn_config")
    wanted = text.get("mamba_ssm_cache_dtype") or text.get("mamba_ssm_dtype")
    size = STATE.get(wanted, 4) if isinstance(wanted, str) else 4
    delta = _gated_delta(text, size)
    kimi = _kimi_delta(
        first_number(linear, "num_heads") or first_number(text, "linear_num_heads"),
        first_number(linear, "head_dim") or first_number(text, "linear_head_dim"),
        first_number(linear, "short_conv_kernel_size") or first_number(text, "linear_conv_kernel_dim") or 4,
    )
    return delta or kimi or _mamba(text, size) or _lightning(text) or (None, ())


def _gated_delta(text: Config, size: int) -> tuple[int, tuple[int, ...]] | None:
    """Qwen3-Next, Qwen3.5 and later."""
    keys, values = first_number(text, "linear_num_key_heads"), first_number(text, "linear_num_value_heads")
    of_key, of_value = first_number(text, "linear_key_head_dim"), first_number(text, "linear_value_head_dim")
    if not (keys and values and of_key and of_value):
        return None
    kernel = first_number(text, "linear_conv_kernel_dim") or 4
    convolved = 2 * keys * of_key + values * of_value
    return values * of_key * of_value * size + convolved * (kernel - 1) * TWO, (keys, values)


def _kimi_delta(heads: int | None, width: int | None, kernel: int) -> tuple[int, tuple[int, ...]] | None:
    """Kimi-Linear and Kimi-K3, GLM-5.3-Flash; always float32."""
    if not (heads and width):
        return None
    return heads * width * width * 4 + 3 * heads * width * (kernel - 1) * TWO, (heads,)


def _mamba(text: Config, size: int) -> tuple[int, tuple[int, ...]] | None:
    """Mamba-2, by heads; without heads the first Mamba."""
    state = first_number(text, "ssm_state_size", "mamba_d_state", "state_size")
    kernel = first_number(text, "conv_kernel", "mamba_d_conv") or 4
    heads = first_number(text, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    expanded = (first_number(text, *WIDTH) or 0) * (first_number(text, "mamba_expand", "expand") or 2)
    inner = first_number(text, "mamba_d_ssm") or expanded
    if heads:
        width = first_number(text, "mamba_head_dim", "mamba_d_head", "mamba_headdim") or inner // heads
        inner = heads * width
    if not state or not inner:
        return None
    groups = first_number(text, "n_groups", "mamba_n_groups", "mamba_ngroups") or 1 if heads else 0
    return inner * state * size + (inner + 2 * groups * state) * (kernel - 1) * TWO, (heads,) if heads else ()


def _lightning(text: Config) -> tuple[int, tuple[int, ...]] | None:
    """MiniMax-Text-01 and MiniMax-M1."""
    heads, width = first_number(text, *HEADS), first_number(text, "head_dim")
    return (heads * width * width * 4, (heads,)) if heads and width and listed(text, "attn_type_list") else None


def convolution_of(text: Config) -> int:
    """Bytes per sequence and layer of a short convolution (LFM2)."""
    length = first_number(text, "conv_L_cache") or 1
    return (first_number(text, *WIDTH) or 0) * (length - 1) * TWO
