"""Does it fit into the Sparks' memory: what of a plan goes into the estimate, and what is refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from components.catalog import Entry
from components.facts.geometry import Cache, Geometry
from components.facts.hub import Model, weights
from components.facts.spark import NodeFacts
from components.plan.engines import Context, flags
from components.plan.engines.common import more_arguments, on_ray, split, wanted
from components.plan.fit import RAY, RUNTIME, Fit, Load, as_engines_see, estimate, gib
from components.problems import Problem, Severity
from components.settings import Settings


def fit(context: Context) -> Iterator[Problem]:
    """Refused where the model can't fit by estimate, a warning where it is tight; with the way out."""
    settings, repo = context.settings, context.model.repo
    load = load_of(context)
    found = estimate(load)
    # 0: nobody has looked.
    seen = [node.available for node in context.facts.values() if node.available and _idle(node)]
    free = min(found.free, *(available - load.beside for available in seen)) if seen else found.free
    lower = "lower it where the engine ends for want of memory"
    parts = (
        f"weights {gib(found.weights)}, cache {gib(found.cache)} for {found.context:,} tokens and about "
        f"{gib(RUNTIME)} beside them on each Spark"
    )
    if found.claimed > free:
        share = f"{int(100 * free / load.memory) / 100:.2f}"
        yield _misfit(
            settings,
            "serving.gpuMemoryUtilization",
            f"{settings.engine} wants to find {gib(found.claimed)} free when it starts, and a Spark has {gib(free)}",
            f"pulumi config set --path serving.gpuMemoryUtilization {share}, or end what else uses its memory",
        )
    elif not found.fits:
        yield _too_large(context, found, parts)
    elif found.tight:
        tight = f"{repo} fits with little to spare: {parts}, of {gib(found.budget)}"
        yield Problem("serving.maxModelLen", tight, lower, Severity.WARN)
    elif load.cache is None:
        unknown = f"whether the cache of {repo} fits is not known: {'; '.join(context.model.geometry.doubts)}"
        yield Problem("serving.maxModelLen", unknown, lower, Severity.WARN)


def _too_large(context: Context, found: Fit, parts: str) -> Problem:
    """What is understood refuses; what is not understood warns, and says why."""
    settings, geometry = context.settings, context.model.geometry
    way = (
        f"pulumi config set --path serving.maxModelLen {found.longest_context}"
        if found.longest_context >= SHORTEST_CONTEXT
        else "use more Sparks, or a smaller quantisation of the model"
    )
    wrong = f"{context.model.repo} does not fit: {parts}, with {gib(found.budget)} for all of it"
    changed = {*flags.given(settings.serving.extra_args)} & (SAVING if geometry.quantized else SAVING | QUANTIZING)
    if changed:
        unknown = f"{wrong}; how much {', '.join(sorted(changed))} saves is not known here"
        return Problem("serving.extraArgs", unknown, way, Severity.WARN)
    # The weights are known in any case.
    if geometry.doubts and not known_cache(context.entry, settings.engine) and found.weights + RUNTIME <= found.budget:
        unknown = f"{wrong}; but the cache is not understood: {'; '.join(geometry.doubts)}"
        return Problem("serving.maxModelLen", unknown, way, Severity.WARN)
    return _misfit(settings, "serving.maxModelLen", wrong, way)


SAVING = {
    "--cpu-offload-gb", "--kv-cache-memory-bytes", "--num-gpu-blocks-override", "--max-total-tokens", "--engram-config",
    "--ple-offload-backend", "--enable-paged-experts", "--kv-offloading-size", "--dtype",
}  # fmt: skip
"""Options by which weights or cache take less of the memory, or another share of it, than the estimate knows."""

QUANTIZING = {"--quantization", "-q", "--torchao-config"}
"""The same, of weights that are not quantised yet."""

SHORTEST_CONTEXT = 1024
"""Tokens; less is of no use. Arbitrary."""


def _misfit(settings: Settings, at: str, wrong: str, fix: str) -> Problem:
    if settings.serving.check_fit:
        return Problem(at, wrong, f"{fix}; this is an estimate: serving.checkFit false goes on all the same")
    return Problem(at, wrong, fix, Severity.WARN)


def _idle(node: NodeFacts) -> bool:
    """No engine of ours runs there, whose memory will be free when it is replaced."""
    return not any(c.running and "dgx-spark.component" in c.labels for c in node.docker.containers)


def load_of(context: Context) -> Load:
    """What the estimate needs to know."""
    settings, geometry = context.settings, context.model.geometry
    want = wanted(settings, context.known)
    tensor, pipeline = split(settings, geometry)
    options = flags.given(more_arguments(context))
    length = next((options[name] for name in LENGTHS if name in options), None)
    share = next((number for name in SHARES if (number := flags.number(options.get(name, "")))), None)
    # `auto` takes what fits.
    context_ = want.length if length is None else int(flags.number(length) or SHORTEST_CONTEXT)
    return Load(
        engine=settings.engine,
        weights=loaded_weights(context.model, context.entry) + drafted(context, tensor * pipeline),
        cache=known_cache(context.entry, settings.engine) or cache_for(settings.engine, geometry),
        tensor=tensor,
        pipeline=pipeline,
        context=context_,
        longest=geometry.longest,
        share=want.memory_share if share is None else share,
        element=0.5 if options.get("--kv-cache-dtype", "").startswith("fp8") else 1.0,
        memory=as_engines_see(min(node.memory for node in context.facts.values())),
        beside=RAY if on_ray(settings) else 0,
    )


LENGTHS = ("--max-model-len", "--context-length", "--max-seq-len")
SHARES = ("--gpu-memory-utilization", "--mem-fraction-static", "--kv-cache-free-gpu-memory-fraction")
"""The engines' own options for what has a setting; behind ours on the command line, theirs win."""


def loaded_weights(model: Model, entry: Entry | None) -> int:
    """Bytes of the whole model in memory: the least that is known, by the hub, the files and the catalog."""
    stored = sum(file.size for file in weights(model.files))
    known = [model.loaded, int((entry.weights_gb or 0) * 1e9) if entry else 0]
    if model.geometry.single:
        stored //= 2
    return min(stored, *(count for count in known if count)) if any(known) else stored


def drafted(context: Context, ranks: int) -> int:
    """Bytes of the draft's own weights, as if each of the ranks held all of them, as some engines do."""
    files = context.draft_model.files if context.draft_model else ()
    return ranks * sum(file.size for file in weights(files))


def cache_for(engine: str, geometry: Geometry) -> Cache | None:
    """TensorRT-LLM has no separate pools for layers with a sliding window."""
    found = geometry.cache
    return found.without_windows() if found and engine == "trtllm" else found


def known_cache(entry: Entry | None, engine: str) -> Cache | None:
    """From the catalog."""
    if entry is None or entry.cache is None or entry.geometry is None:
        return None
    known, heads = entry.cache, entry.geometry.kv_heads or entry.geometry.heads
    # A hybrid's bytes per sequence are states, others' are windows.
    states = known.per_sequence if known.kind.startswith("hybrid") else 0
    windows = known.per_sequence - states
    found = Cache(known.kind, known.per_token, windows, heads, states, known.per_token_all_full)
    return found.without_windows() if engine == "trtllm" else found
