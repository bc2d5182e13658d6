"""How a model can be divided among Sparks: what tensor parallelism must divide, and the layouts that are left. Pure.

Sources: vLLM 0.31, ModelConfig.verify_with_parallel_config, QKVParallelLinear, VocabParallelEmbedding, divide(); SGLang
0.5, the same layers and FusedMoE.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.facts.geometry import Geometry

PADDED = 64
"""vLLM and SGLang round the vocabulary up to a multiple of this, and divide that."""


def obstacles(geometry: Geometry, tensor: int, engine: str) -> Iterator[str]:
    """What `tensor` ranks can't share; with one of these the engine ends before it has loaded anything."""
    heads, kv_heads = geometry.heads, geometry.kv_heads
    if heads is not None and heads % tensor:
        yield f"{heads} attention heads, which {tensor} does not divide"
    if kv_heads is not None and kv_heads % tensor and tensor % kv_heads:
        yield f"{kv_heads} key-value heads, which {tensor} neither divides nor is a multiple of"
    for count in sorted({count for count in geometry.linear_heads if count % tensor}):
        yield f"{count} heads of linear attention, which {tensor} does not divide"
    vocabulary = -(-(geometry.vocabulary or 0) // PADDED) * PADDED
    if vocabulary % tensor and engine in ("vllm", "sglang"):
        yield f"a vocabulary of {vocabulary} tokens, which {tensor} does not divide"


def doubtful(geometry: Geometry, tensor: int, *, expert_parallel: bool) -> Iterator[str]:
    """What may not be divisible either: the names of widths mean different layers in different models."""
    width = geometry.intermediate
    if width is None or tensor == 1 or (geometry.experts and expert_parallel):
        return
    if width % tensor:
        yield f"feed-forward layers of width {width}, which {tensor} does not divide"
    elif geometry.block and width // tensor % geometry.block:
        yield f"FP8 scales for {geometry.block} numbers each, and {width} numbers by {tensor} are no multiple of it"


def layouts(geometry: Geometry, gpus: int, engine: str) -> list[tuple[int, int]]:
    """(tensor parallel, pipeline parallel) that are possible on `gpus`, the most tensor parallel first; one always
    is."""
    sizes = [tensor for tensor in range(gpus, 0, -1) if gpus % tensor == 0]
    return [(tensor, gpus // tensor) for tensor in sizes if not any(obstacles(geometry, tensor, engine))]
