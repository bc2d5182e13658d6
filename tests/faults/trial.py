"""A fault is a row of docs/trust.md: brought about in so many trials, each of which must end in a right state by itself
or with one plain `up` or `destroy`."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components import catalog
from simulator import sparks
from simulator.layout import RUN, Spark
from tests.e2e.conftest import Stack, changed, left_behind
from tests.e2e.steps import step
from tests.faults.bystander import Bystander

Test = Callable[..., Any]


def fault(name: str, *, trials: int, short: int = 0) -> Callable[[Test], Test]:
    """The test, which takes the fixture `trial`, is one trial of this fault; `./spark test` runs the first `short` of
    `trials`. Several tests may share a name: their trials are counted together."""
    numbers = [pytest.param(number, marks=() if number < short else pytest.mark.long) for number in range(trials)]

    def decorate(test: Test) -> Test:
        for mark in (
            pytest.mark.parametrize("trial", numbers, indirect=True),
            pytest.mark.fault(name),
            pytest.mark.e2e,
        ):
            test = mark(test)
        return test

    return decorate


class Around:
    """What a stack stands among on its Sparks: what was there before it, and what others have there."""

    def __init__(self, nodes: Sequence[Spark]) -> None:
        self.bystanders = [Bystander(spark) for spark in nodes]
        self._before = {spark: left_behind(spark) for spark in nodes}

    def assert_untouched(self) -> None:
        for one in self.bystanders:
            one.assert_untouched()

    def assert_alone(self) -> None:
        """Nothing of the stack is left."""
        for spark, before in self._before.items():
            assert changed(before, left_behind(spark)) == {}, spark.name

    def remove(self) -> None:
        for one in self.bystanders:
            one.remove()


class Trial:
    """One trial of a fault; says when it has ended right."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.chance = random.Random(f"{name} {number}")
        """The same in every run: a trial that failed can be seen again."""
        self.seconds = 0.0
        """Until all was right again: in `up` and `destroy`, or waiting."""
        self.around: Around | None = None
        self._own: Around | None = None

    def among(self, nodes: Sequence[Spark]) -> None:
        """Put something of others on these Sparks; what is there now must be there when the stack has gone."""
        self.around = self._own = Around(nodes)

    def end(self) -> None:
        if self._own:
            self._own.remove()

    def ends_right(self, stack: Stack, mend: Callable[[], object] | None = None, *, but: str | None = None) -> None:
        """By `mend`, one plain `up`, or by itself, the model answers, and rightly; then the preview is clean (`but` for
        what is left over by these words), the weights are whole, and nothing of others was touched."""
        step("it ends right")
        with self._taking():
            if mend:
                mend()
            outputs = stack.outputs()
            sparks.wait_for(lambda: stack.answers(outputs), f"{stack.name} to answer", limit=1 if mend else 300)
        said = stack.complete("The capital of France is", outputs, temperature=0)["choices"][0]["text"]
        assert "paris" in said.lower()
        step("the preview is clean")
        assert stack.is_clean(but)
        step("nothing is lost")
        # TensorRT-LLM serves a model under the name of its directory.
        entry = catalog.find(outputs["model"])
        repo = entry.id if entry else outputs["model"]
        for spark in stack.nodes:
            assert weights(spark, repo) == published(repo)
        if self.around:
            self.around.assert_untouched()

    def ends_gone(self, stack: Stack, mend: Callable[[], object] | None = None) -> None:
        """By one plain `destroy`, or `mend`: nothing of the stack is left, and nothing of others was touched."""
        step("it is gone")
        with self._taking():
            (mend or stack.destroy)()
        if self.around:
            self.around.assert_alone()
            self.around.assert_untouched()

    @contextmanager
    def _taking(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds += time.monotonic() - began


def weights(spark: Spark, model: str) -> dict[str, str]:
    """File of weights on this Spark → digest of its content."""
    folder = f"~/.cache/huggingface/hub/models--{model.replace('/', '--')}/snapshots/*/"
    lines = sparks.on(spark, f"cd {folder} && sha256sum *.safetensors").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def published(model: str) -> dict[str, str]:
    """The same of the hub's."""
    files: list[Path] = sorted((RUN / "hub" / model).glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
