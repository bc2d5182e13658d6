"""What each rank of each catalog model is started with, read by the engine's own parser.

TensorRT-LLM's is in no package on PyPI: tests/unit/test_command_lines.py reads by its declarations.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components import catalog
from components.problems import Refused
from simulator import sparks
from simulator.genuine import image, wheels
from tests.unit.build import plan, settings

pytestmark = [pytest.mark.long, pytest.mark.real]

HERE = Path(__file__).parent


EVERYDAY = (
    {"maxModelLen": 8192, "gpuMemoryUtilization": 0.8, "servedModelName": "demo"},
    {"loader": "prefetch", "trustRemoteCode": True},
    {"loader": "fastsafetensors", "stuckAfter": 0},
    {"expertParallel": True, "reasoningParser": "qwen3"},
    {"pipelineParallel": 2, "tensorParallel": 1},
    {"draft": {"method": "ngram"}},
)
"""What README changes in `serving`."""


def words(name, count, before, **config):
    """Rank → the words after those that start an engine. Whether the model fits is another question."""
    chosen = {**config, "serving": {"checkFit": False, **config.get("serving", {})}}
    made = plan(settings(count, model=name, **chosen))
    assert all(rank.command[: len(before)] == before for rank in made.ranks)
    return {f"{name} on {count}, {config}, rank {n}": rank.command[len(before) :] for n, rank in enumerate(made.ranks)}


VLLM, SGLANG = ("vllm", "serve"), ("python3", "-m", "sglang.launch_server")


def test_vllm_takes_what_every_catalog_model_is_started_with(simulated):
    lines = {}
    # Those with an image of their own have options of it.
    for entry in (entry for entry in catalog.entries() if not entry.served("vllm").image):
        for count, serving in ((1, {}), (2, {"executor": "mp"}), (2, {"executor": "ray"}), (2, {"dataParallel": 2})):
            lines |= words(entry.name, count, VLLM, serving=serving)
    for serving in EVERYDAY:
        lines |= words("gpt-oss-120b", 2, VLLM, serving=serving, monitoring=True)
    lines["wrong"] = ["/model", "--no-such-option"]
    (simulated[-1].home / "parse.py").write_text((HERE / "parse.py").read_text())
    parse = f"docker run -i --rm -v /srv/spark/parse.py:/parse.py:ro {image.IMAGE} python3 /parse.py"
    against = json.loads(sparks.on(simulated[-1], parse, stdin=json.dumps(lines), timeout=300).splitlines()[-1])
    assert "unrecognized arguments: --no-such-option" in against.pop("wrong")
    assert against == {}


def test_sglang_takes_what_every_catalog_model_is_started_with_and_reads_the_key(simulated):
    lines = {}
    for entry in (entry for entry in catalog.entries() if not entry.served("sglang").image):
        for count in (1, 2, 3):
            try:
                lines |= words(entry.name, count, SGLANG, engine="sglang", apiKey="the-key")
            except Refused:  # a kind of model that SGLang does not serve
                continue
    for serving in EVERYDAY[:4]:
        lines |= words("gpt-oss-120b", 2, SGLANG, engine="sglang", apiKey="the-key", serving=serving, monitoring=True)
    lines["wrong"] = ["--model-path=/model", "--no-such-option"]
    home = simulated[-1].home
    shutil.copytree(wheels.sglang(), home / "sglang", dirs_exist_ok=True)
    (home / "parse_sglang.py").write_text((HERE / "parse_sglang.py").read_text())
    parse = (
        "docker run -i --rm -v /srv/spark/parse_sglang.py:/parse.py:ro -v /srv/spark/sglang:/sglang:ro"
        f" -e PYTHONPATH=/sglang {image.IMAGE} python3 /parse.py"
    )
    said = json.loads(sparks.on(simulated[-1], parse, stdin=json.dumps(lines), timeout=600).splitlines()[-1])
    assert "unrecognized arguments: --no-such-option" in said.pop("wrong")["wrong"]
    assert {name: one["wrong"] for name, one in said.items() if one["wrong"]} == {}
    assert len(said) > 300
    assert {name for name, one in said.items() if not one["key"]} == {n for n in said if not n.endswith("rank 0")}
