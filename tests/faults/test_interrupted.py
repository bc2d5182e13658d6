"""Ctrl-C at random moments, once and twice, and at a question."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from collections.abc import Sequence

import pytest

from simulator.engine import warm
from tests.e2e.conftest import Stack, unlocked
from tests.e2e.steps import step
from tests.faults.conftest import Life
from tests.faults.trial import Trial, fault
from tests.faults.under_way import HEARS, UnderWay, pulumi, spark

BETWEEN = 1.5
"""Seconds between two Ctrl-C, at most."""


def interrupted(stack: Stack, trial: Trial, argv: Sequence[str], most: int, *, times: int) -> None:
    """`most`: lines that it says in any case."""
    line, later = trial.chance.randrange(1, most), trial.chance.uniform(0, BETWEEN)
    step(f"Ctrl-C after line {line}, and again {later:.2f} s later" if times > 1 else f"Ctrl-C after line {line}")
    run = UnderWay(stack, argv)
    assert run.has_said(line), run.text
    run.interrupt()
    if times > 1:
        time.sleep(later)
        run.interrupt()
    ended = run.rest()
    print(ended.text)
    assert "Traceback" not in ended.text
    # It may have been through before the second one, or the first.
    unlocked(stack)


def begun(life: Life, trial: Trial, command: str, times: int) -> None:
    words = {
        "up": lambda: pulumi(life.stack, "up"),
        "destroy": lambda: pulumi(life.stack, "destroy"),
        "switch": lambda: spark(life.stack, "switch", life.other(), "--yes"),
        "rollback": lambda: spark(life.stack, "rollback", "--yes"),
    }
    if command == "up":
        life.is_gone(trial)
    else:
        life.serves(trial)
    most = {"up": 55, "destroy": 48}.get(command, 66)
    interrupted(life.stack, trial, words[command](), most, times=times)
    if command == "destroy":
        trial.ends_gone(life.stack)
    else:
        trial.ends_right(life.stack, life.stack.up)


COMMANDS = pytest.mark.parametrize("command", ["up", "switch", "rollback", "destroy"])


@fault("Ctrl-C in `up`, `switch`, `rollback` or `destroy`", trials=2)
@COMMANDS
def test_once(life, trial, command):
    begun(life, trial, command, 1)


@fault("Ctrl-C twice in `up`, `switch`, `rollback` or `destroy`", trials=2)
@COMMANDS
def test_twice(life, trial, command):
    begun(life, trial, command, 2)


def asked(stack: Stack, argv: Sequence[str], question: str) -> tuple[str, int]:
    """What a command says on a terminal where somebody presses Ctrl-C at its question, and its exit code."""
    env = {key: value for key, value in stack.environment.items() if key != warm.SOCKET}
    ours, theirs = pty.openpty()
    # A session of its own, of which this is the terminal: it turns Ctrl-C into a signal.
    program = [*HEARS, "setsid", "--ctty", "--wait", *argv]
    process = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=stack.folder)
    os.close(theirs)
    said = b""
    while question.encode() not in said:
        said += os.read(ours, 4096)
    os.write(ours, b"\x03")
    while more := _more(ours):
        said += more
    os.close(ours)
    return said.decode(errors="replace"), process.wait()


def _more(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that nobody has the other end open
        return b""


@fault("Ctrl-C at the question of `./spark switch`, `rollback` or `destroy`", trials=1)
@pytest.mark.parametrize(
    ("command", "question"),
    [(("switch", ""), "Switch life to"), (("rollback",), "Switch life to"), (("destroy",), "Take all of life away")],
)
def test_at_the_question(life, trial, command, question):
    life.serves(trial)
    file = life.stack.folder / "Pulumi.life.yaml"
    before = file.read_text()
    words = [word or life.other() for word in command]
    said, code = asked(life.stack, spark(life.stack, *words), question)
    print(said)
    assert code
    assert "Traceback" not in said
    assert file.read_text() == before
    trial.ends_right(life.stack)
