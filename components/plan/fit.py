"""Will a model fit? Weights, cache and overhead of one rank against its Spark's memory. Pure.

Formulas and figures: published configurations and results for GB10, gathered with their sources in
components/catalog/models.yaml; tests/unit/test_fit.py holds the estimate against results that others measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.facts.geometry import Cache

GIB = 1 << 30

SPARK_MEMORY = int(121.69 * GIB)
"""Bytes that CPU and GPU of one Spark share, as CUDA and so the engines see them. Source: engine logs on GB10."""

MEM_TOTAL = int(119.70 * GIB)
"""The same as /proc/meminfo and so Ray see it: without what the kernel keeps. Source: MiaAI-Lab, GLM-5.3 on two Sparks,
issue 47."""

OTHERS = 11 * GIB
"""Bytes that are not free on a running Spark, where nobody has looked: a fraction of 0.90 starts, 0.92 does not.
Source: vllm-project/recipes pull 632."""

RAY = 3 * GIB
"""Bytes of Ray's own processes on a Spark: dashboard and agents 1.2 GiB, two idle workers of 0.4 GiB (--num-cpus=2),
the object store of 1 GiB. Source: eugr/spark-vllm-docker, pull 90."""

RAY_SHARE = 0.85
"""The most that vLLM may claim beside Ray: leaves 16 GiB of MemTotal for Ray, the system and its page cache, where 0.90
leaves 10. Source: the same measurements; conselara.dev calls 0.85 to 0.87 the safe range."""

RUNTIME = 6 * GIB
"""Bytes of one rank beside weights and cache: activations, CUDA graphs, NCCL, the host's side. 5 to 12 GiB have been
seen; engines that need more than this give up cache for it."""

TIGHT = 0.05
"""Share of the budget below which what is left over is worth a warning."""

DEFAULT_SHARE = {"vllm": 0.9, "sglang": 0.88, "trtllm": 0.9}
"""Fractions where nobody says one. vLLM's is given to it (engines/common.py); TensorRT-LLM's is its own, by its --help,
and SGLang picks about this for one GPU."""


@dataclass(frozen=True)
class Load:
    """What is to be served, and on what."""

    engine: str
    weights: int
    """Bytes, whole model."""

    cache: Cache | None
    """None: not known, so only the weights are held against the memory."""

    tensor: int
    pipeline: int
    context: int | None
    """Tokens; None: the model's own maximum."""

    longest: int | None
    """The model's own maximum."""

    share: float | None
    """The engine's fraction; None: its own default."""

    sequences: int = 1
    element: float = 1.0
    """0.5 with an 8-bit cache."""

    memory: int = SPARK_MEMORY
    """Bytes, as the engine sees them."""

    free: int | None = None
    """Bytes free when the engine starts; None: not known."""

    beside: int = 0
    """Bytes of what is started with the engine: Ray."""


@dataclass(frozen=True)
class Fit:
    """One rank, in bytes."""

    weights: float
    cache: float
    budget: float
    """For weights, cache and runtime."""

    claimed: float
    """What the engine wants to find free when it starts."""

    free: float
    context: int
    longest_context: int
    """That would fit, at most the model's own maximum."""

    @property
    def needed(self) -> float:
        return self.weights + RUNTIME + self.cache

    @property
    def starts(self) -> bool:
        return self.claimed <= self.free

    @property
    def fits(self) -> bool:
        return self.needed <= self.budget and self.starts

    @property
    def tight(self) -> bool:
        return self.fits and self.budget - self.needed < TIGHT * self.budget


def as_engines_see(mem_total: int) -> int:
    """Bytes of a Spark whose /proc/meminfo says MemTotal."""
    return mem_total + SPARK_MEMORY - MEM_TOTAL


def estimate(load: Load) -> Fit:
    """How one rank of `load` fits; all ranks are alike."""
    share = load.share if load.share is not None else DEFAULT_SHARE[load.engine]
    free = (load.free if load.free is not None else load.memory - OTHERS) - load.beside
    weights = load.weights / (load.tensor * load.pipeline)
    if load.engine == "vllm":
        budget = claimed = share * load.memory
    elif load.engine == "sglang":
        # Its fraction is of weights and cache; activations and graphs come on top.
        budget, claimed = share * load.memory + RUNTIME, share * load.memory
    else:
        # Its fraction is of what the weights leave, for the cache alone.
        budget = weights + RUNTIME + share * max(0.0, free - weights - RUNTIME)
        claimed = weights + RUNTIME
    context = load.context or load.longest or 0
    cache = longest = 0.0
    if load.cache is not None:
        cache = load.sequences * load.cache.of_rank(context, load.tensor, load.pipeline, load.element)
        fixed = load.cache.of_rank(0, load.tensor, load.pipeline, load.element)
        token = load.cache.of_rank(1, load.tensor, load.pipeline, load.element) - fixed
        room = (budget - weights - RUNTIME) / load.sequences - fixed
        longest = room / token if token else math.inf
    else:
        longest = math.inf if budget - weights - RUNTIME > 0 else 0.0
    most = max(0.0, min(longest, load.longest or context or longest))
    return Fit(weights, cache, budget, claimed, free, context, 0 if math.isinf(most) else int(most))


def gib(count: float) -> str:
    return f"{count / GIB:,.1f} GiB"
