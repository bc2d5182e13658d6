"""What trials of faults share, and how their ends are counted."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.programs.readiness import FORMER
from ops.faults import COUNTED
from simulator.layout import Spark
from tests.e2e.conftest import Stack
from tests.e2e.conftest import alone as alone
from tests.e2e.conftest import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.e2e.conftest import simulated as simulated
from tests.e2e.conftest import third as third
from tests.e2e.steps import pytest_runtest_makereport as _steps
from tests.faults.trial import Around, Trial


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    fault = request.node.get_closest_marker("fault").args[0]
    trial = Trial(request.param, fault)
    yield trial
    trial.end()


PLAIN = {"executor": "mp"}
MODELS = ("gpt-oss-20b", "gpt-oss-120b")


@pytest.fixture
def pair(simulated: list[Spark], tmp_path: Path) -> Iterator[Stack]:
    """A stack of the first and second Spark, with the plain settings of vLLM (no Ray), destroyed afterwards."""
    stack = Stack(tmp_path, "pair", simulated[:2], serving=PLAIN)
    yield stack
    stack.destroy()


class Life:
    """A stack of two Sparks, among what others have there, for the trials of one module one after the other."""

    def __init__(self, folder: Path, nodes: list[Spark]) -> None:
        self._around = Around(nodes)
        self.stack = Stack(folder, "life", nodes, serving=PLAIN)

    def serves(self, trial: Trial) -> None:
        """It serves when the trial begins, and has served another model before."""
        trial.around = self._around
        if (self.stack.folder / FORMER / "life.yaml").exists() and self.stack.outputs() and self.stack.is_clean():
            return
        for model in MODELS:
            self.stack.configure(serving=PLAIN, model=model)
            self.stack.up()

    def is_gone(self, trial: Trial) -> None:
        """It is not there when the trial begins."""
        trial.around = self._around
        self.stack.destroy()

    def other(self) -> str:
        """The model that does not serve."""
        return next(model for model in MODELS if model not in self.stack.outputs()["model"])

    def end(self) -> None:
        self.stack.destroy()
        self._around.remove()


@pytest.fixture(scope="module")
def life(simulated: list[Spark], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    life = Life(tmp_path_factory.mktemp("life"), simulated[:2])
    yield life
    life.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield from _steps(call)
    marker = item.get_closest_marker("fault")
    # A trial whose setup fails is none; one that can't be cleared up has failed.
    if marker and COUNTED in os.environ and (call.when == "call" or (call.when == "teardown" and report.failed)):
        _count(item, marker.args[0], right=report.passed)
        if report.failed:
            _say(item, report)
    return report


def _say(item: pytest.Function, report: pytest.TestReport) -> None:
    """At once: all trials take hours, and whoever ends them before has its reason all the same."""
    terminal = item.config.pluginmanager.getplugin("terminalreporter")
    if terminal:
        terminal.write_line(f"\n{item.nodeid}\n{report.longreprtext}")


def _count(item: pytest.Function, fault: str, *, right: bool) -> None:
    trial: Any = item.funcargs["trial"]
    found = {"module": item.path.stem, "fault": fault, "trial": item.name, "right": right, "seconds": trial.seconds}
    with open(os.environ[COUNTED], "a") as file:
        file.write(json.dumps(found) + "\n")
