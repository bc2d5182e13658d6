"""`./spark models`: what fits, how fast it is said to be, what it costs; and the table in docs/models.md."""

import json

import pytest

from components import catalog
from ops import fits, models
from ops.fits import judge
from ops.models import Wanted
from ops.pulumi import CommandError

PAIR = models.Hardware(2, "vllm", "")


def found(*words, where=PAIR, **wanted):
    return {row["name"]: row for row in models.rows(where, Wanted(words, **wanted))}


def test_what_fits_one_spark_and_what_two():
    rows = found()
    assert rows["gpt-oss-120b"]["fits"]["1"]["runs"]
    assert not rows["llama-3.3-70b"]["fits"]["1"]["runs"]
    assert rows["llama-3.3-70b"]["fits"]["2"]["runs"]
    assert rows["minimax-m2.5"]["fits"]["2"]["word"] == "does not fit"
    assert rows["minimax-m2.5"]["fits"]["2"]["longest"] == 0


def test_a_verdict_says_why_in_the_previews_words():
    assert judge(catalog.find("llama-3.3-70b"), "vllm", 1).why.startswith(
        "meta-llama/Llama-3.3-70B-Instruct does not fit: weights 131.4 GiB"
    )
    refused = judge(catalog.find("qwen3-vl-reranker-2b"), "sglang", 2)
    assert (refused.word, refused.why) == (
        "refused",
        "Qwen/Qwen3-VL-Reranker-2B is for ranking documents, which sglang does not serve",
    )
    assert judge(catalog.find("qwen3.5-397b-int4"), "vllm", 2).word == "tight"


def test_three_sparks_divide_the_layers_where_the_heads_can_not_be_divided():
    verdict = judge(catalog.find("gpt-oss-120b"), "vllm", 3)
    assert (verdict.tensor, verdict.pipeline) == (1, 3)


def test_an_entry_of_which_little_is_known_is_left_to_the_preview(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("models: [{id: a/b, name: b}]")
    row = found("b", where=models.Hardware(1, "vllm", str(mine)))["b"]
    assert row["fits"]["1"]["word"] == "unknown"
    assert not found("b", where=models.Hardware(1, "vllm", str(mine)), fitting=True).get("b")


def test_rows_are_found_by_words_by_task_and_by_fit():
    assert {"qwen3-32b-nvfp4", "qwen3-235b-a22b-fp4"} <= found("qwen3-", "NVFP4").keys()
    assert "qwen3-8b-fp8" not in found("qwen3-", "NVFP4")
    assert found(task="score").keys() == {"qwen3-vl-reranker-2b", "qwen3-vl-reranker-8b"}
    assert "minimax-m2.5" not in found(fitting=True)


def test_rows_are_sorted_by_what_the_user_asks_for():
    assert next(iter(found(sort="size", fitting=True))) == "qwen3-vl-reranker-2b"
    alone = models.Hardware(1, "vllm", "")
    assert next(iter(found(sort="speed", where=alone))) == "qwen3.6-35b-a3b-nvfp4"
    assert list(found(sort="name")) == sorted(found())


def test_the_first_answer_takes_the_download_the_copies_and_the_start():
    """60 GB at 1000 Mbit/s are 480 s; to two other Sparks at 1.2 GB/s 100 s; 30 GB on each start in 2 + 3.5 minutes."""
    entry = catalog.Entry(id="a/b", name="b", weights_gb=90, disk_gb=60)
    assert models.minutes(entry, 3, 1000) == {"download": 8.0, "copy": 1.7, "start": 5.5}
    assert models.minutes(entry, 1, 1000)["copy"] == 0


def test_speeds_of_as_many_sparks_and_this_engine_come_first():
    rows = found("gpt-oss-120b")
    assert [(one["sparks"], one["requests"]) for one in rows["gpt-oss-120b"]["speed"]] == [(2, 1), (2, 32)]
    four = found("gpt-oss-120b", where=models.Hardware(4, "vllm", ""))
    assert {one["sparks"] for one in four["gpt-oss-120b"]["speed"]} == {1, 2}


def test_a_stack_says_how_many_sparks_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "ROOT", tmp_path)
    (tmp_path / "Pulumi.four.yaml").write_text(
        "config: {dgx-spark:nodes: [{}, {}, {}, {}], dgx-spark:engine: sglang, dgx-spark:catalog: mine.yaml}"
    )
    assert models.hardware("four", None, None) == models.Hardware(4, "sglang", "mine.yaml")
    assert models.hardware("four", 2, "vllm").sparks == 2
    with pytest.raises(CommandError, match=r"there is no Pulumi\.five\.yaml"):
        models.hardware("five", None, None)
    with pytest.raises(CommandError, match="there is no engine ollama: vllm, sglang, trtllm"):
        models.hardware(None, None, "ollama")


def test_programs_get_json_and_people_a_table(capsys):
    where = models.hardware(None, None, None)
    models.show(where, Wanted(), as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == len(catalog.entries())
    models.show(where, Wanted(), as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "pulumi config set model" in text
    assert "models for vllm on 2 Sparks" in text


def test_a_broken_catalog_is_one_clear_error():
    with pytest.raises(CommandError, match="catalog"):
        models.rows(models.Hardware(1, "vllm", "/nowhere/x.yaml"))


def test_the_table_in_the_documentation_is_up_to_date():
    _, mark, table = models.DOCUMENT.read_text().partition(models.MARK)
    assert mark
    assert table == models.documented(), "run ./spark docs"


def test_the_table_has_every_model_on_every_engine_with_a_reason_for_each_no():
    table = models.DOCUMENT.read_text().partition(models.MARK)[2]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 3 * len(catalog.entries())
    for row in rows:
        refused = any(word in cell for cell in row[2:6] for word in ("refused", "does not fit", "fits to", "unknown"))
        assert bool(row[6].removesuffix("|").strip()) or not refused, row


RUN = [
    # peers.md 4.1, each with whoever measured it.
    ("gpt-oss-120b", "vllm", 1), ("gpt-oss-120b", "vllm", 2), ("gpt-oss-120b", "sglang", 2),
    ("qwen3-coder-next-fp8", "sglang", 2), ("qwen3-235b-a22b-int4", "vllm", 2), ("qwen3-235b-a22b-fp4", "trtllm", 2),
    ("llama-3.3-70b", "sglang", 2), ("minimax-m2.7-nvfp4", "vllm", 2), ("minimax-m2.7-awq", "vllm", 2),
    ("minimax-m2-awq", "vllm", 2), ("qwen3.5-397b-int4", "vllm", 4), ("deepseek-v4-flash", "vllm", 2),
    ("gemma-4-26b-a4b-fp8", "vllm", 1), ("nemotron-3-super-120b-a12b-nvfp4", "vllm", 1),
    ("nemotron-3-super-120b-a12b-nvfp4", "vllm", 2), ("qwen3.6-35b-a3b-nvfp4", "vllm", 1),
    # Public recipes of eugr, spark-arena and vLLM for so many Sparks.
    ("qwen3.5-397b-int4", "vllm", 2), ("qwen3.5-397b-int4", "vllm", 3), ("glm-5.3-flash-nvfp4", "vllm", 2),
    ("glm-5.3-flash-nvfp4", "vllm", 4), ("deepseek-v4.1-flash", "vllm", 4), ("qwen3.8-flash-next-nvfp4", "vllm", 1),
    ("qwen3.8-flash-next-nvfp4", "vllm", 2), ("qwen3.8-flash-next-nvfp4", "vllm", 4),
    ("qwen3.8-flash-next-nvfp4", "sglang", 1), ("qwen3.8-27b-nvfp4", "vllm", 1), ("nemotron-3.5-lightning", "vllm", 1),
    ("nemotron-3.5-lightning", "vllm", 2), ("qwen3.5-122b-int4", "vllm", 1), ("laguna-s-2.1-nvfp4", "vllm", 1),
    ("mistral-small-4-119b-nvfp4", "vllm", 1), ("qwen3-coder-next-fp8", "vllm", 1), ("qwen3.6-27b-fp8", "vllm", 1),
    ("qwen3.6-27b-fp8", "sglang", 1), ("qwen3.6-35b-a3b-fp8", "vllm", 1), ("qwen3.6-35b-a3b-fp8", "vllm", 2),
    ("gemma-4-31b-nvfp4", "vllm", 1), ("nemotron-3-ultra-550b-nvfp4", "vllm", 4), ("minimax-m2.5", "vllm", 4),
    ("glm-4.7-nvfp4", "vllm", 2), ("qwen3-vl-embedding-8b", "vllm", 1), ("qwen3-vl-reranker-8b", "vllm", 1),
]  # fmt: skip
"""(entry, engine, Sparks) that somebody says to have run: shared knowledge of November 2026, sources in the catalog."""


@pytest.mark.parametrize(("name", "engine", "sparks"), RUN)
def test_what_somebody_runs_is_not_refused(name, engine, sparks):
    verdict = judge(catalog.find(name), engine, sparks)
    assert verdict.runs, verdict


def test_nothing_whose_speed_was_measured_is_refused_on_that_many_sparks():
    for entry in catalog.entries():
        for one in entry.throughput:
            assert judge(entry, one.engine, one.sparks).runs, (entry.name, one)


def test_nothing_is_refused_on_the_fewest_sparks_that_somebody_named():
    for entry in catalog.entries():
        assert judge(entry, "vllm", entry.min_sparks).runs or entry.vllm == catalog.Served(), entry.name


def test_the_sparks_that_are_judged_are_in_good_order():
    """Else every verdict would be the Sparks' and not the model's."""
    assert fits.judge(catalog.find("qwen2.5-7b"), "trtllm", 4).word == "fits"
