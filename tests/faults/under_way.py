"""A command under way, to be ended at a moment of one's choice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from simulator.engine import warm
from tests.e2e.conftest import Run, Stack

LIMIT = 300
"""Seconds for a command to say a line, or to end."""


HEARS = ("env", "--default-signal=INT")
"""Before a program's words: it hears Ctrl-C, which what a shell runs in the background does not."""


class UnderWay:
    """Pulumi, or one of our commands, started as from a terminal, in a session of its own, and without a warm start:
    all that it starts is below it."""

    def __init__(self, stack: Stack, argv: Sequence[str]) -> None:
        env = {key: value for key, value in stack.environment.items() if key != warm.SOCKET}
        self.process = subprocess.Popen(
            [*HEARS, *argv], env=env, cwd=stack.folder, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._more:
                self.said.append(line)
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def has_said(self, lines: int) -> bool:
        """Wait for so many lines; False: it has ended before."""
        with self._more:
            assert self._more.wait_for(lambda: self._ended or len(self.said) >= lines, LIMIT), self.text
        return len(self.said) >= lines

    def says(self, words: str) -> None:
        """Wait for a line with these words."""
        with self._more:
            assert self._more.wait_for(lambda: self._ended or words in self.text, LIMIT), self.text
        assert words in self.text, self.text

    @property
    def text(self) -> str:
        return "".join(self.said)

    def kill(self) -> None:
        """kill -9 of all of it at once: engine, program, providers, and what these run on this machine."""
        for pid in tree(self.process.pid):
            _signal(pid, signal.SIGKILL)
        self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells each process of the foreground's group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def rest(self) -> Run:
        """Wait for its end."""
        with self._more:
            assert self._more.wait_for(lambda: self._ended, LIMIT), self.text
        return Run(self.process.wait(LIMIT), self.text)


def tree(pid: int) -> list[int]:
    """This process and all below it, each stopped first, so that none starts another meanwhile."""
    _signal(pid, signal.SIGSTOP)
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in tree(child))]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def pulumi(stack: Stack, *words: str) -> list[str]:
    """The words of `up` or `destroy`, unasked."""
    return [*stack.argv, *words, "--yes", "--skip-preview", "--stack", stack.name]


OURS = """
import os
from pathlib import Path
from ops import __main__ as spark, stack
from ops.project import Project
spark.project = stack.project = lambda _: Project(Path.cwd(), dict(os.environ))
spark.main()
"""
"""`./spark`, in the folder of the stack in place of its own."""


def spark(stack: Stack, *words: str) -> list[str]:
    """The words of one of our commands."""
    return [sys.executable, "-c", OURS, *words, "--stack", stack.name]
