"""What ranks of SGLang and TensorRT-LLM are started with, by the real ones' declarations (flags.txt of the stand-ins).

What genuine parsers say: tests/real/test_arguments.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components import catalog
from components.problems import Refused
from tests.unit.build import plan, settings

STANDINS = Path(__file__).parent.parent.parent / "simulator" / "standins"

READ = """
import contextlib, io, json, sys
from {engine}.arguments import parser
said = {{}}
for name, words in json.load(sys.stdin).items():
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.suppress(SystemExit):
        parser().parse_args(words)
    if error.getvalue():
        said[name] = error.getvalue()
print(json.dumps(said))
"""

STARTS = {"sglang": "sglang.launch_server", "trtllm": "trtllm-serve"}


@pytest.mark.parametrize("engine", STARTS)
def test_an_engine_takes_what_every_catalog_model_is_started_with(engine):
    lines = {}
    for entry in (entry for entry in catalog.entries() if not entry.served(engine).image):
        for count in (1, 2):
            try:
                made = plan(settings(count, engine=engine, model=entry.name, serving={"checkFit": False}))
            except Refused:  # a kind of model that the engine does not serve
                continue
            for number, rank in enumerate(made.ranks):
                if STARTS[engine] in rank.command:
                    words = rank.command[rank.command.index(STARTS[engine]) + 1 :]
                    lines[f"{entry.name} on {count}, rank {number}"] = words
    assert len(lines) > 100
    lines["wrong"] = ["--no-such-option"]
    argv = [sys.executable, "-c", READ.format(engine=engine)]
    read = subprocess.run(
        argv, input=json.dumps(lines), env={"PYTHONPATH": str(STANDINS)}, capture_output=True, text=True
    )
    said = json.loads(read.stdout)
    assert said.pop("wrong")
    assert said == {}
