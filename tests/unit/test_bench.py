"""What is measured, and what of the catalog a matrix takes."""

import pytest

from ops import bench, matrix
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import Stack
from tests.unit.build import settings


def test_profiles_are_those_of_the_reference_projects():
    sizes = {name: (one.prompts, one.input, one.output) for name, one in bench.PROFILES.items()}
    assert sizes["quick"] == (10, 128, 128)
    assert sizes["long"] == (200, 1024, 1024)
    assert bench.PROFILES["latency"].rate == 2
    assert bench.PROFILES["stress"].concurrency == 128


def test_sizes_of_ones_own_replace_those_of_a_profile():
    assert bench.chosen("short") == bench.PROFILES["short"]
    assert bench.chosen("short", prompts=7, input=None) == bench.Profile("custom", 7, 256, 256)
    with pytest.raises(CommandError, match="there is no profile fast; there is quick, short"):
        bench.chosen("fast")


class Counts:
    """An endpoint whose tokenizer makes 1.5 tokens of a word, and whose template has 20."""

    def post(self, path, **order):
        words = len(order["messages"][0]["content"].split())
        usage = {"prompt_tokens": 20 + words * 3 // 2}
        return type("Answer", (), {"json": lambda self: {"usage": usage}})()


def test_prompts_are_sized_in_the_models_own_tokens():
    sizer = bench.Sizer(Counts())
    assert sizer.words(1024) == round((1024 - 20) / 1.5)
    assert sizer.words(5) == 1, "a template of its own may be more than was asked for"


def test_no_two_prompts_begin_alike():
    beginnings = {" ".join(bench.prompt(100, seed).split()[:8]) for seed in range(200)}
    assert len(beginnings) == 200


def cluster(count=2, **config):
    return Stack(Project(None, {}), "test", settings(count, **config))


def names(found):
    return {case.entry.name for case in found}


def test_a_matrix_takes_what_fits_and_the_filters_let_through():
    every = matrix.cases(cluster(), matrix.Wanted())
    assert {"gpt-oss-120b", "llama-3.3-70b"} <= names(every)
    assert "minimax-m2.5" not in names(every), "does not fit two Sparks"
    assert "qwen3-vl-embedding-2b" not in names(every), "does not chat"
    single = names(matrix.cases(cluster(), matrix.Wanted(nodes="single")))
    multi = names(matrix.cases(cluster(), matrix.Wanted(nodes="multi")))
    assert single | multi == names(every)
    assert not single & multi
    assert "llama-3.3-70b" in multi
    assert "llama-3.3-70b" not in names(matrix.cases(cluster(), matrix.Wanted(skip_gated=True)))


def test_named_models_are_tried_in_that_order_on_every_engine():
    found = matrix.cases(cluster(), matrix.Wanted(models=["minimax-m2.5", "gpt-oss-20b"], engines=["vllm", "sglang"]))
    assert [case.short for case in found] == [
        "minimax-m2.5_vllm",
        "minimax-m2.5_sglang",
        "gpt-oss-20b_vllm",
        "gpt-oss-20b_sglang",
    ]
    with pytest.raises(CommandError, match="nobody/nothing is not in the catalog"):
        matrix.cases(cluster(), matrix.Wanted(models=["nobody/nothing"]))
    with pytest.raises(CommandError, match="no model of the catalog is left"):
        matrix.cases(cluster(1), matrix.Wanted(models=["llama-3.3-70b"], nodes="single"))
