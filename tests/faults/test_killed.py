"""kill -9 of Pulumi at random moments."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.e2e.conftest import Stack, unlocked
from tests.e2e.steps import step
from tests.faults.conftest import Life
from tests.faults.trial import Trial, fault
from tests.faults.under_way import UnderWay, pulumi, spark

LONGEST = 0.6
"""Seconds from a line to the moment, at most: most things are said within a second of each other."""


def killed(life: Life, trial: Trial, argv: Sequence[str], most: int) -> None:
    """`most`: lines that it says in any case."""
    line, later = trial.chance.randrange(most), trial.chance.uniform(0, LONGEST)
    step(f"kill -9, {later:.2f} s after line {line}")
    run = UnderWay(life.stack, argv)
    reached = run.has_said(line)
    time.sleep(later)
    run.kill()
    print(run.text)
    assert reached, "it has said less than ever"
    unlocked(life.stack)


@fault("kill -9 of Pulumi, its program and providers at a random moment of `up`", trials=8)
def test_in_up(life, trial):
    life.is_gone(trial)
    killed(life, trial, pulumi(life.stack, "up"), most=55)
    trial.ends_right(life.stack, life.stack.up)


@fault("kill -9 of all of them at a random moment of `./spark switch`", trials=8)
def test_in_switch(life, trial):
    life.serves(trial)
    killed(life, trial, spark(life.stack, "switch", life.other(), "--yes"), most=66)
    trial.ends_right(life.stack, life.stack.up)


@fault("kill -9 of all of them at a random moment of `./spark rollback`", trials=7)
def test_in_rollback(life, trial):
    life.serves(trial)
    killed(life, trial, spark(life.stack, "rollback", "--yes"), most=66)
    trial.ends_right(life.stack, life.stack.up)


@fault("kill -9 of all of them at a random moment of `destroy`", trials=7)
def test_in_destroy(life, trial):
    life.serves(trial)
    killed(life, trial, pulumi(life.stack, "destroy"), most=48)
    trial.ends_gone(life.stack)


def left_alone(stack: Stack, trial: Trial, word: str, most: int) -> None:
    """The engine alone is killed: what it runs goes on for as long as it does."""
    line = trial.chance.randrange(2, most)
    step(f"kill -9 of the engine, after line {line} of {word}")
    run = UnderWay(stack, pulumi(stack, word))
    run.has_said(line)
    run.process.kill()
    print(run.rest().text)
    unlocked(stack)


@fault("kill -9 of the engine alone, in `up`, again in the next `up`, and in `destroy`", trials=6)
def test_of_the_engine_alone(alone, third, trial):
    trial.among([third])
    alone.configure(monitoring=True)
    left_alone(alone, trial, "up", 40)
    if trial.number % 2:
        left_alone(alone, trial, "up", 40)
    trial.ends_right(alone, alone.up)
    left_alone(alone, trial, "destroy", 40)
    trial.ends_gone(alone)
