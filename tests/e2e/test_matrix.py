"""`./spark bench --matrix`: models and engines in turn, a failure in between, and the former one again."""

from __future__ import annotations

import csv
import json

import pytest

from ops import bench, matrix
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import step

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def test_models_are_measured_in_turn_failures_stop_nothing_and_the_former_one_is_back(
    alone, third, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")

    step("up")
    alone.up()
    where = of(Project(alone.folder, alone.environment), alone.name)
    # gpt-oss-20b breaks while it loads; llama is gated and the stack has no token.
    sparks.set_knobs(third, crash="CUDA error: out of memory", crash_model="gpt-oss-20b")

    step("the matrix")
    wanted = matrix.Wanted(
        models=["qwen2.5-7b", "gpt-oss-20b", "llama-3.3-70b"], engines=["sglang"], concurrency=[1, 4]
    )
    profile = bench.chosen(None, prompts=4, input=64, output=8)
    said: list[str] = []
    folder = matrix.run(where, wanted, profile, said.append)

    step("its results")
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["model"], row["concurrency"], row["status"]) for row in rows] == [
        ("Qwen/Qwen2.5-7B-Instruct", "1", "OK"),
        ("Qwen/Qwen2.5-7B-Instruct", "4", "OK"),
        ("openai/gpt-oss-20b", "1", "UP_FAILED"),
        ("meta-llama/Llama-3.3-70B-Instruct", "1", "SKIPPED"),
    ]
    assert float(rows[0]["output_throughput"]) > 0
    assert "CUDA error: out of memory" in (folder / "gpt-oss-20b_sglang_up.log").read_text()
    assert json.loads((folder / "results.json").read_text())["models_tested"] == 3
    assert "1. Qwen/Qwen2.5-7B-Instruct on sglang" in (folder / "summary.txt").read_text()
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")

    step("the former model is back")
    assert alone.outputs()["model"] == "openai/gpt-oss-120b"
    assert alone.complete()["choices"]
    assert alone.is_clean()
