"""What guesses tokens ahead, and the rest of what the catalog says for a model's own image: options and environment."""

import json
from dataclasses import replace

import pytest

from components import catalog
from components.facts.hub import File, Model
from components.plan import known, orders
from components.plan.decide import before_model, guesses
from components.plan.engines import Context, flags
from components.plan.memory import load_of
from components.problems import Refused
from tests.unit.build import IDENTITY, MODEL, decided, facts, pair, plan, settings

EAGLE = {"method": "eagle3", "model": "a/draft", "tokens": 5}
DRAFT = Model("a/draft", "d" * 40, (File("config.json", 1, None), File("model.safetensors", 2 * 10**9, "ef" * 32)), {})
PATH = f"/root/.cache/huggingface/hub/models--a--draft/snapshots/{'d' * 40}"


def asked(order):
    """What the probe is told on a Spark."""
    return json.loads(order)["input"]


def command(made, rank=0):
    return made.ranks[rank].command


def value(words, name):
    (word,) = (word for word in words if word.startswith(f"{name}="))
    return word.partition("=")[2]


def refusal(chosen, **more):
    with pytest.raises(Refused) as caught:
        plan(chosen, **more)
    return str(caught.value)


def test_vllm_is_told_where_the_drafts_weights_are_on_every_rank():
    own = {**EAGLE, "options": {"draft_tensor_parallel_size": 1}}
    made = plan(settings(serving={"draft": own}), draft=DRAFT)
    for rank in (0, 1):
        assert json.loads(value(command(made, rank), "--speculative-config")) == {
            "method": "eagle3",
            "model": PATH,
            "num_speculative_tokens": 5,
            "draft_tensor_parallel_size": 1,
        }


def test_a_draft_that_is_part_of_the_model_names_no_weights():
    made = plan(settings(1, serving={"draft": {"method": "mtp"}}))
    assert json.loads(value(command(made), "--speculative-config")) == {"method": "mtp", "num_speculative_tokens": 3}
    assert made.draft is None


def test_sglang_counts_the_models_own_token_too():
    made = plan(settings(1, engine="sglang", serving={"draft": EAGLE}), draft=DRAFT)
    assert [word for word in command(made) if "speculative" in word] == [
        "--speculative-algorithm=EAGLE3",
        f"--speculative-draft-model-path={PATH}",
        "--speculative-num-steps=5",
        "--speculative-eagle-topk=1",
        "--speculative-num-draft-tokens=6",
    ]
    block = plan(settings(1, engine="sglang", serving={"draft": {**EAGLE, "method": "dflash"}}), draft=DRAFT)
    assert [word for word in command(block) if "num" in word] == ["--speculative-num-draft-tokens=6"]


def test_tensorrt_llm_has_it_among_its_options():
    made = plan(settings(1, engine="trtllm", serving={"draft": EAGLE}), draft=DRAFT)
    options = json.loads(made.ranks[0].files["/opt/dgx-spark/options.yaml"])
    assert options["speculative_config"] == {
        "decoding_type": "Eagle",
        "max_draft_len": 5,
        "speculative_model_dir": PATH,
    }
    layers = plan(settings(1, engine="trtllm", serving={"draft": {"method": "mtp", "tokens": 2}}))
    options = json.loads(layers.ranks[0].files["/opt/dgx-spark/options.yaml"])
    assert options["speculative_config"] == {"decoding_type": "MTP", "num_nextn_predict_layers": 2}
    assert "speculative_config" not in json.loads(
        plan(settings(1, engine="trtllm")).ranks[0].files["/opt/dgx-spark/options.yaml"]
    )


def test_its_weights_are_pinned_placed_and_recorded_like_the_models():
    chosen = settings(serving={"draft": {**EAGLE, "revision": "v1"}})
    made = plan(chosen, draft=DRAFT)
    assert made.draft.repo == "a/draft"
    for step in made.draft.weights:
        assert step.inputs["record"]["kind"] == "draft"
        assert (step.inputs["commit"], step.inputs["revision"]) == ("d" * 40, "v1")
        assert step.inputs["files"][1]["sha256"] == "ef" * 32
    assert {step.inputs["revision"] for step in made.weights} == {None}
    order = orders.probe(chosen, "o/p/s")["spark-1"]
    assert asked(order)["repos"] == ["openai/gpt-oss-120b", "a/draft"]


def test_the_disk_must_hold_it_too():
    cache = {"path": "/raid", "free": 70 * 10**9, "held": {}}
    with pytest.raises(Refused, match=r"72.0 GB needed .*gpt-oss-120b: 65.0 GB, a/draft: 2.0 GB"):
        decided(settings(serving={"draft": EAGLE}), pair(cache=cache), draft=DRAFT)


def context(chosen, model=MODEL, draft=None):
    entry = catalog.find(chosen.model, chosen.catalog)
    found = {node.name: facts(n) for n, node in enumerate(chosen.nodes, 1)}
    return Context(chosen, found, {}, model, entry, IDENTITY, 8000, guesses(chosen, model), draft)


def test_each_spark_is_counted_with_the_whole_draft():
    without, with_it = load_of(context(settings())), load_of(context(settings(), draft=DRAFT))
    assert with_it.weights / 2 - without.weights / 2 == 2 * 10**9


def test_what_stays_on_the_disk_is_not_counted():
    chosen = settings(1, model="qwen3.8-flash-next-nvfp4")
    whole = replace(MODEL, files=(File("model.safetensors", 135 * 10**9, "ab"),))
    assert load_of(context(chosen, whole)).weights == 87 * 10**9
    assert load_of(context(settings(1, model="a/b"), whole)).weights == 135 * 10**9


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        ({"method": "eagle3"}, "serving.draft: eagle3 needs model: the repository of the model that guesses"),
        ({"method": "ngram", "model": "a/b"}, "serving.draft: ngram needs no model"),
        ({"method": "magic"}, "serving.draft.method"),
        ({"method": "eagle", "model": "/data/x"}, "serving.draft.model"),
    ],
)
def test_half_a_draft_is_refused(draft, words):
    with pytest.raises(Refused) as caught:
        settings(serving={"draft": draft})
    assert words in str(caught.value)


def test_what_an_engine_or_a_model_can_not_is_refused():
    flash = {**EAGLE, "method": "dflash"}
    with pytest.raises(Refused, match="trtllm knows no dflash"):
        before_model(settings(1, engine="trtllm", serving={"draft": flash}), {"spark-1": facts(1)}, IDENTITY)
    sentences = replace(MODEL, files=(*MODEL.files, File("modules.json", 1, None)))
    assert "gives no text to guess" in refusal(settings(1, serving={"draft": EAGLE}), model=sentences, draft=DRAFT)
    directory = replace(MODEL, path="/data/x", repo="/data/x")
    text = refusal(settings(model="/data/x", serving={"draft": EAGLE}), model=directory, draft=DRAFT)
    assert "serving.draft.model: goes into the cache" in text


QWEN = {"num_attention_heads": 16, "num_hidden_layers": 40, "num_key_value_heads": 2, "head_dim": 256}
SMALL = Model("nvidia/Qwen3.6-35B-A3B-NVFP4", "c" * 40, (File("model.safetensors", 23 * 10**9, "ab"),), QWEN)


def test_the_catalogs_options_environment_and_draft_are_used_and_the_users_win():
    words = command(plan(settings(1, model="qwen3.6-35b-a3b-nvfp4"), model=SMALL))
    assert value(words, "--moe-backend") == "marlin"
    assert json.loads(value(words, "--speculative-config"))["method"] == "mtp"
    own = {"extraArgs": ["--moe_backend=cutlass", "--no-async-scheduling"], "draft": {"method": "none"}}
    words = command(plan(settings(1, model="qwen3.6-35b-a3b-nvfp4", serving=own), model=SMALL))
    assert [word for word in words if "moe" in word] == ["--moe_backend=cutlass"]
    assert [word for word in words if "async" in word] == ["--no-async-scheduling"]
    assert not [word for word in words if "speculative" in word]
    made = plan(
        settings(1, model="laguna-s-2.1-nvfp4", serving={"env": {"CUTE_DSL_ARCH": "x"}}), model=SMALL, draft=DRAFT
    )
    assert made.ranks[0].environment["CUTE_DSL_ARCH"] == "x"
    made = plan(settings(1, model="laguna-s-2.1-nvfp4"), model=SMALL, draft=DRAFT)
    assert made.ranks[0].environment["CUTE_DSL_ARCH"] == "sm_121a"


def test_an_option_of_several_words_is_replaced_whole(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("models: [{id: a/b, name: b, vllm: {args: [--sizes, '1', '2', --seed=1]}}]")
    words = command(plan(settings(1, model="b", catalog=str(mine), serving={"extraArgs": ["--sizes", "4"]})))
    assert words[-3:] == ("--seed=1", "--sizes", "4")


def test_an_8_bit_cache_that_the_catalog_asks_for_is_counted_as_one():
    assert load_of(context(settings(1, model="qwen3.6-35b-a3b-nvfp4"), SMALL)).element == 0.5


def test_what_is_for_the_catalogs_image_is_left_out_with_another_and_said(tmp_path):
    chosen = {"model": "deepseek-v4-flash", "image": {"name": "mine:1"}, "serving": {"checkFit": False}}
    made = plan(settings(**chosen))
    assert not [word for word in command(made) if "b12x" in word or "speculative" in word or "load-format" in word]
    (warning,) = (one for one in made.warnings if one.at == "image.name")
    assert "left out: for eugr/spark-vllm-b12x" in warning.wrong
    theirs = plan(settings(**{**chosen, "image": {}}))
    assert value(command(theirs), "--moe-backend") == "b12x"
    assert not [one for one in theirs.warnings if one.at == "image.name"]


def test_the_catalogs_draft_is_not_used_across_a_pipeline_and_the_users_own_is_with_a_warning():
    chosen = settings(3, model="qwen3.6-35b-a3b-nvfp4")
    made = plan(chosen, {f"spark-{n}": facts(n) for n in (1, 2, 3)}, SMALL)
    assert not [word for word in command(made) if "speculative" in word]
    own = settings(3, model="qwen3.6-35b-a3b-nvfp4", serving={"draft": {"method": "mtp"}})
    made = plan(own, {f"spark-{n}": facts(n) for n in (1, 2, 3)}, SMALL)
    assert [word for word in command(made) if "speculative" in word]
    assert "few engines guess across a pipeline" in "".join(one.wrong for one in made.warnings)


def test_a_staged_model_brings_its_draft_and_neither_is_placed_twice():
    chosen = settings(model="laguna-s-2.1-nvfp4", weights={"stage": ["qwen3.8-27b-nvfp4", "laguna-s-2.1-nvfp4"]})
    assert known.stored(chosen) == ("nvidia/Qwen3.8-27B-NVFP4", "z-lab/Qwen3.8-27B-DFlash2")


def test_an_image_that_is_older_than_the_model_is_refused():
    chosen = settings(1, model="nemotron-3.5-lightning", image={"name": "nvcr.io/nvidia/vllm:26.05-py3"})
    with pytest.raises(Refused) as caught:
        before_model(chosen, {"spark-1": facts(1)}, IDENTITY)
    assert "nemotron-3.5-lightning needs vllm 0.27.1, and nvcr.io/nvidia/vllm:26.05-py3 has 0.20" in str(caught.value)
    before_model(settings(1, model="nemotron-3.5-lightning"), {"spark-1": facts(1)}, IDENTITY)
    with pytest.raises(Refused, match=r"needs trtllm 1\.3, and .* has 1\.2\.1"):
        before_model(settings(1, model="laguna-s-2.1-nvfp4", engine="trtllm"), {"spark-1": facts(1)}, IDENTITY)


@pytest.mark.parametrize(
    ("has", "least", "older"),
    [
        ((0, 19), "0.19.1", False),
        ((0, 18), "0.19.1", True),
        ((0, 27, 0), "0.27.1", True),
        ((1, 0), "0.27.1", False),
        ((0, 31), "0.31", False),
        ((0, 9), "0.10", True),
    ],
)
def test_versions_are_compared_as_far_as_they_are_known(has, least, older):
    assert flags.older(has, least) is older


def test_offline_a_draft_must_be_in_the_heads_cache():
    chosen = settings(serving={"draft": EAGLE}, weights={"offline": True})
    order = orders.probe(chosen, "o/p/s")["spark-1"]
    assert asked(order)["draft"] == {"repo": "a/draft", "revision": None}
    there = {"commit": "e" * 40, "files": [{"path": "model.safetensors", "size": 7, "sha256": None}], "config": {}}
    found = known.present(chosen, facts(1, draft=there), "a/draft")
    assert (found.commit, found.size) == ("e" * 40, 7)
    with pytest.raises(Refused, match=r"(?s)a/draft, which guesses .* hf download a/draft"):
        known.present(chosen, facts(1), "a/draft")
