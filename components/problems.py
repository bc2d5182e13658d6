"""One way to refuse: every problem at once, each with the key, what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that keeps the program from going on."""

    at: str
    """Where: a config key (`nodes[1].host`) or a Spark (`spark-2`)."""

    wrong: str
    fix: str


class Refused(Exception):
    """The configuration can't be converged. `str()` is what the user reads."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{count} thing{'s need' if count > 1 else ' needs'} attention before anything is changed"]
        for problem in self.problems:
            lines += [f"  {problem.at}: {problem.wrong}", f"    → {problem.fix}"]
        super().__init__("\n".join(lines))
