"""The estimate of memory, held against results that others published, and what a user reads of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, strategies

from components import catalog
from components.facts.geometry import Cache, read
from components.facts.hub import File
from components.plan.fit import GIB, MEM_TOTAL, RAY, RUNTIME, SPARK_MEMORY, Load, estimate
from components.plan.memory import known_cache
from components.problems import Refused
from tests.unit.build import MODEL, facts, plan, settings

PUBLISHED = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text())


def load_of(result):
    entry = catalog.find(result["model"])
    engine = result.get("engine", "vllm")
    return Load(
        engine=engine,
        weights=int(entry.weights_gb * 1e9),
        cache=known_cache(entry, engine),
        tensor=result.get("nodes", 1),
        pipeline=1,
        # Where no length was published, what the catalog serves it with.
        context=result.get("context") or entry.served(engine).max_model_len or 8192,
        longest=None,
        share=result.get("memory_fraction"),
        sequences=result.get("sequences", 1),
        element=0.5 if result.get("kv_dtype") == "fp8" else 1.0,
    )


@pytest.mark.parametrize("result", PUBLISHED, ids=[f"{r['model']}-{r['source'][:40]}" for r in PUBLISHED])
def test_the_estimate_agrees_with_what_was_published(result):
    load = load_of(result)
    if "measured_with" in result:
        # Another quantisation: only the cache's geometry is the same.
        per_rank = load.cache.of_rank(load.context, load.tensor, 1, load.element) / GIB
        if "kv_gib_per_rank_at_context" in result:
            assert per_rank == pytest.approx(result["kv_gib_per_rank_at_context"], rel=0.01)
        if "max_context_for_available" in result:
            token = load.cache.of_rank(1, load.tensor, 1, load.element)
            assert result["kv_available_gib"] * GIB / token == pytest.approx(result["max_context_for_available"], 0.01)
        if "kv_available_gib" in result:
            assert (per_rank <= result["kv_available_gib"]) == (result["fits"] == "yes")
        return
    assert estimate(load).fits == (result["fits"] == "yes"), estimate(load)
    if "kv_gib_per_rank_at_context" in result:
        assert estimate(load).cache / GIB == pytest.approx(result["kv_gib_per_rank_at_context"], rel=0.02)


def test_results_that_are_not_in_that_list():
    """NVIDIA's support matrix: Qwen3-235B in FP4 needs two Sparks; 70B in BF16 does not fit into one."""
    for model in ("nvidia/Qwen3-235B-A22B-FP4", "meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen2.5-72B-Instruct"):
        load = load_of({"model": model, "engine": "vllm", "context": 4096})
        assert not estimate(load).fits
        assert estimate(replace(load, tensor=2)).fits


def test_geometry_from_a_config_is_that_of_the_catalog():
    plain = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128}
    assert read(plain).cache == Cache("gqa", 327680, 0, 8)
    vision = {"text_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 512}}
    assert read(vision).cache == Cache("gqa", 2 * 2 * 4 * 128 * 2, 0, 4)
    assert read({"text_config": {"max_position_embeddings": 4096}}).longest == 4096
    latent = {"num_hidden_layers": 27, "num_attention_heads": 16, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert read(latent).cache == Cache("mla", 27 * 576 * 2)
    mamba = {"num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128}
    assert read({**mamba, "hybrid_override_pattern": "M-*M"}).cache.per_token == 1024
    gpt_oss = {
        "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 18,
    }  # fmt: skip
    known = known_cache(catalog.find("gpt-oss-120b"), "vllm")
    assert read(gpt_oss).cache == known
    assert read({"model_type": "bert"}).cache is None


@given(
    weights=strategies.integers(10**9, 2 * 10**11),
    per_token=strategies.integers(1000, 500_000),
    heads=strategies.sampled_from([1, 2, 8, 16]),
    tensor=strategies.sampled_from([1, 2, 3, 4]),
    engine=strategies.sampled_from(["vllm", "sglang", "trtllm"]),
    share=strategies.floats(0.3, 0.9),
)
def test_the_longest_context_that_is_named_fits_and_one_more_token_does_not(
    weights, per_token, heads, tensor, engine, share
):
    load = Load(engine, weights, Cache("gqa", per_token, 0, heads), tensor, 1, 1024, None, share)
    most = estimate(replace(load, longest=10**9)).longest_context
    if 0 < most < 10**9:
        at, beyond = estimate(replace(load, context=most)), estimate(replace(load, context=most + 1))
        assert at.needed <= at.budget + 1
        assert beyond.needed > beyond.budget - 1


@given(tensor=strategies.integers(1, 16), heads=strategies.integers(1, 16))
def test_a_rank_never_keeps_less_than_one_head(tensor, heads):
    share = Cache("gqa", 1, 0, heads).share(tensor)
    assert 1 / heads <= share <= 1
    assert share * tensor >= 1


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_catalogs_bytes_per_sequence_are_states_of_hybrids_and_windows_of_others(engine):
    hybrid = known_cache(catalog.find("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"), engine)
    assert (hybrid.per_sequence, hybrid.state) == (0, 49082368)
    sliding = known_cache(catalog.find("gpt-oss-120b"), engine)
    assert (sliding.per_sequence, sliding.state) == (4718592, 0)
    assert known_cache(catalog.find("gpt-oss-120b"), "trtllm") == Cache("sliding", 73728, 0, 8)


def model(gigabytes, **config):
    geometry = {"num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80, "head_dim": 128}
    files = (File("model.safetensors", gigabytes * 10**9, "ab"),)
    return replace(MODEL, repo="a/b", files=files, config={**geometry, "max_position_embeddings": 131072, **config})


def refusal(*arguments, **more):
    with pytest.raises(Refused) as caught:
        plan(*arguments, **more)
    return str(caught.value)


def spark(**changes):
    return {"spark-1": facts(1, memory=MEM_TOTAL, **changes)}


def test_a_model_that_is_too_large_is_refused_with_the_way_out():
    text = refusal(settings(1, model="a/b"), spark(), model(141))
    assert "a/b does not fit: weights 131.3 GiB, cache 40.0 GiB for 131,072 tokens" in text
    assert "use more Sparks, or a smaller quantisation" in text


def test_a_context_that_is_too_long_is_refused_with_the_longest_that_fits():
    text = refusal(settings(1, model="a/b"), spark(), model(80))
    longest = int((0.9 * SPARK_MEMORY - 80e9 - RUNTIME) / 327680)
    assert f"pulumi config set --path serving.maxModelLen {longest}" in text
    fitting = plan(settings(1, model="a/b", serving={"maxModelLen": longest}), spark(), model(80))
    assert "a/b fits with little to spare" in fitting.warnings[0].wrong
    assert plan(settings(1, model="a/b", serving={"maxModelLen": 2048}), spark(), model(40)).warnings == ()


def test_an_8_bit_cache_holds_twice_as_much():
    serving = {"maxModelLen": 100_000, "extraArgs": ["--kv-cache-dtype=fp8"]}
    assert "serving.maxModelLen" in refusal(
        settings(1, model="a/b", serving={"maxModelLen": 100_000}), spark(), model(80)
    )
    plan(settings(1, model="a/b", serving=serving), spark(), model(80))


def test_a_spark_whose_memory_is_taken_is_told_before_the_engine_is():
    text = refusal(
        settings(1, model="a/b", serving={"maxModelLen": 2048}), spark(available=int(102.2 * GIB)), model(40)
    )
    assert "vllm wants to find 109.5 GiB free when it starts, and a Spark has 102.2 GiB" in text
    assert "pulumi config set --path serving.gpuMemoryUtilization 0.83" in text


def test_engines_claim_their_share_of_more_than_meminfo_shows():
    """0.90 of the 121.69 GiB that CUDA sees, 109.5 GiB, is 91.5 % of the 119.70 GiB in /proc/meminfo."""
    text = refusal(settings(1, model="a/b", serving={"maxModelLen": 2048}), spark(available=int(109 * GIB)), model(40))
    assert "wants to find 109.5 GiB free" in text


def test_ray_takes_memory_of_its_own():
    both = {f"spark-{n}": facts(n, memory=MEM_TOTAL, available=int(105 * GIB)) for n in (1, 2)}
    wanted = {"maxModelLen": 2048, "gpuMemoryUtilization": 0.85}
    plan(settings(model="a/b", serving=wanted), both, model(40))
    text = refusal(settings(model="a/b", serving={**wanted, "executor": "ray"}), both, model(40))
    assert "vllm wants to find 103.4 GiB free when it starts, and a Spark has 102.0 GiB" in text
    assert "serving.gpuMemoryUtilization 0.83" in text
    alone = Load("vllm", 10**9, None, 1, 1, 1024, None, 0.9)
    assert estimate(alone).starts
    assert not estimate(replace(alone, beside=RAY)).starts


def test_memory_that_our_own_server_holds_will_be_free_for_the_next():
    ours = {"id": "1", "name": "s", "running": True, "labels": {"dgx-spark.component": "server"}}
    docker = {"runtimes": ["nvidia"], "containers": [ours]}
    plan(settings(1, model="a/b", serving={"maxModelLen": 2048}), spark(available=GIB, docker=docker), model(40))


def test_who_knows_better_may_go_on():
    made = plan(settings(1, model="a/b", serving={"checkFit": False}), spark(), model(141))
    assert "does not fit" in made.warnings[0].wrong


def test_a_cache_that_is_not_understood_warns_and_does_not_refuse():
    strange = {"layer_types": ["telepathy"] * 40 + ["full_attention"] * 40, "max_position_embeddings": 1048576}
    made = plan(settings(1, model="a/b"), spark(), model(60, **strange))
    (warning,) = made.warnings
    assert "does not fit: weights 55.9 GiB, cache 160.0 GiB" in warning.wrong
    assert "but the cache is not understood: its layers of the kind telepathy are not known here" in warning.wrong
    # The weights are known: by them alone it is refused.
    assert "does not fit" in refusal(settings(1, model="a/b"), spark(), model(141, **strange))
    silent = plan(settings(1, model="a/b"), spark(), model(60, num_hidden_layers=None))
    assert "is not known: its config.json names no number of layers" in silent.warnings[0].wrong


def test_weights_count_as_they_are_loaded():
    short = {"serving": {"maxModelLen": 2048}}
    half = replace(model(141), loaded=70 * 10**9)
    assert plan(settings(1, model="a/b", **short), spark(), half).warnings == ()
    assert plan(settings(1, model="a/b", **short), spark(), model(141, torch_dtype="float32")).warnings == ()
    # Pickles and checkpoints, which a directory of one's own may hold, are not loaded.
    copies = tuple(File(name, 70 * 10**9, None) for name in ("m.safetensors", "m.bin", "checkpoint-1/m.safetensors"))
    assert plan(settings(1, model="a/b", **short), spark(), replace(model(1), files=copies)).warnings == ()
    # Tables that stay on the disk: the catalog knows what is loaded.
    large = replace(MODEL, files=(File("model.safetensors", 500 * 10**9, "ab"),))
    assert plan(settings(1), spark(), large).weights


@pytest.mark.parametrize(
    ("engine", "variable", "option"),
    [
        ("vllm", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", '--hf-overrides={"max_position_embeddings":262144}'),
        ("sglang", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", '--json-model-override-args={"x":1}'),
        ("trtllm", "TLLM_ALLOW_LONG_MAX_MODEL_LEN", None),
    ],
)
def test_a_context_longer_than_the_models_warns_where_the_engine_was_told_to_allow_it(engine, variable, option):
    wanted = {"maxModelLen": 200_000}
    text = refusal(settings(1, engine=engine, model="a/b", serving=wanted), spark(), model(20))
    assert "200000 is more than the 131072 tokens that a/b was made for" in text
    assert f"pulumi config set --path serving.env.{variable} 1" in text
    ways = [{"env": {variable: "1"}}, *([{"extraArgs": [option]}] if option else [])]
    for way in ways:
        made = plan(settings(1, engine=engine, model="a/b", serving={**wanted, **way}), spark(), model(20))
        assert "131072 tokens" in made.warnings[0].wrong
    scaled = {"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 131072}}
    plan(settings(1, engine=engine, model="a/b", serving=wanted), spark(), model(20, **scaled))


def test_what_the_engines_own_options_say_of_length_and_share_counts():
    def refused(*words, engine="vllm"):
        try:
            plan(settings(1, engine=engine, model="a/b", serving={"extraArgs": words}), spark(), model(80))
        except Refused as error:
            return str(error)
        return ""

    assert "for 131,072 tokens" in refused()
    for words in (
        ("--max-model-len=2048",),
        ("--max_model_len", "2k"),
        ("--max-model-len=auto",),
        ("--max-model-len", "-1"),
    ):
        assert not refused(*words), words
    assert "for 114,688 tokens" in refused("--max-model-len=112K")
    assert not refused("--context-length=2048", engine="sglang")
    assert "with 60.8 GiB for all of it" in refused("--max-model-len=2048", "--gpu-memory-utilization=0.5")


@pytest.mark.parametrize("word", ["--cpu-offload-gb=80", "--quantization=fp8"])
def test_an_option_that_saves_memory_warns_since_nobody_knows_how_much(word):
    chosen = settings(1, model="a/b", serving={"maxModelLen": 2048, "extraArgs": [word]})
    (warning,) = plan(chosen, spark(), model(141)).warnings
    assert f"how much {word.split('=')[0]} saves is not known here" in warning.wrong


def test_the_name_of_a_quantisation_that_the_weights_have_saves_nothing_more():
    chosen = settings(1, model="a/b", serving={"maxModelLen": 2048, "extraArgs": ["--quantization=modelopt_fp4"]})
    assert "does not fit" in refusal(chosen, spark(), model(141, quantization_config={"quant_method": "modelopt"}))
