"""One way to say what is wrong: where, what and the remedy; and one way to refuse, with every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    REFUSE = "refuse"
    """The program does not go on."""

    WARN = "warn"
    """It goes on, worse than it could."""

    NOTE = "note"
    """Nothing is wrong, but it should be known beforehand."""


@dataclass(frozen=True)
class Problem:
    """One thing that somebody has to know, before anything is changed."""

    at: str
    """Where: a setting (`nodes[1].host`) or a Spark (`spark-2`)."""

    wrong: str
    fix: str
    """What to do about it: an action. '' where nothing need be done (a note)."""

    severity: Severity = Severity.REFUSE

    def __str__(self) -> str:
        return f"{self.at}: {self.wrong}" + (f"\n  → {self.fix}" if self.fix else "")


def split(problems: Iterable[Problem]) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """(those that refuse, the others), each in the order given."""
    every = tuple(problems)
    return (
        tuple(one for one in every if one.severity is Severity.REFUSE),
        tuple(one for one in every if one.severity is not Severity.REFUSE),
    )


class Refused(Exception):
    """The configuration can't be converged. `str()` is what the user reads."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{count} thing{'s need' if count > 1 else ' needs'} attention before anything is changed"]
        for problem in self.problems:
            lines += [f"  {line}" for line in str(problem).splitlines()]
        super().__init__("\n".join(lines))
