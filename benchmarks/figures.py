"""Figures of one run, each against what it is measured by in that run; pure but for the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

WORSE = 1.25
"""Times the last run's figure from which on it is called worse: two runs of one machine differ by less."""

Kind = Literal["times", "at least times", "more", "value"]
Former = Mapping[tuple[str, str], "Figure"]
"""Group and name → the newest figure of it in the history."""


@dataclass(frozen=True)
class Aim:
    """What a figure is held to."""

    kind: Kind
    """times: ours ÷ theirs, at most · at least times: theirs ÷ ours, at least · more: ours − theirs, at most ·
    value: ours, at most."""

    limit: float

    def value(self, ours: Sequence[float], theirs: Sequence[float]) -> float:
        mine = median(ours)
        if self.kind == "value":
            return mine
        other = median(theirs)
        return {"times": mine / other, "at least times": other / mine, "more": mine - other}[self.kind]

    def met(self, value: float) -> bool:
        return value >= self.limit if self.kind == "at least times" else value <= self.limit

    def worse(self, value: float, before: float) -> bool:
        """Than in a former run, by more than two runs of one machine differ."""
        if self.kind == "at least times":
            return value * WORSE < before
        # A difference may be nothing, or less.
        return value > max(before * WORSE, before + 0.1 * self.limit)

    def text(self) -> str:
        return {
            "times": f"≤ {self.limit:g} ×",
            "at least times": f"≥ {self.limit:g} ×",
            "more": f"≤ {self.limit:g} more",
            "value": f"≤ {self.limit:g}",
        }[self.kind]


@dataclass(frozen=True)
class Figure:
    group: str
    """Of the picture it is in."""

    name: str
    ours: tuple[float, ...]
    """One for each repetition."""

    against: str = ""
    """What is done in its place, or beside it."""

    theirs: tuple[float, ...] = ()
    aim: Aim | None = None
    unit: str = "s"

    @property
    def value(self) -> float | None:
        """What is held to the aim."""
        return self.aim.value(self.ours, self.theirs) if self.aim else None


@dataclass(frozen=True)
class Run:
    """One run of all measurements, or of some."""

    when: str
    """ISO 8601."""

    where: str
    """Engine, machine and Sparks: figures of the same place can be compared."""

    figures: list[Figure] = field(default_factory=list)
    kind: Literal["full", "quick", ""] = ""
    """Of one kind figures can be compared: a quick run copies less. Empty: kept before this was."""

    def written(self) -> dict[str, Any]:
        return asdict(self)


def read(document: dict[str, Any]) -> Run:
    """What `Run.written` made."""
    figures = [
        Figure(**{
            **one,
            "ours": tuple(one["ours"]),
            "theirs": tuple(one["theirs"]),
            "aim": Aim(**one["aim"]) if one["aim"] else None,
        })
        for one in document["figures"]
    ]  # fmt: skip
    return Run(document["when"], document["where"], figures, document.get("kind", ""))


def spread(values: Sequence[float], unit: str) -> str:
    """Median, and between what they lie."""
    if not values:
        return ""
    middle = f"{median(values):.2f} {unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def rows(run: Run, before: Former) -> list[tuple[str, ...]]:
    """Measure, ours, against, theirs, figure, aim, and what became of it."""
    return [
        (
            one.name,
            spread(one.ours, one.unit),
            one.against,
            spread(one.theirs, one.unit),
            "" if one.value is None else f"{one.value:.2f}",
            one.aim.text() if one.aim else "",
            verdict(one, before.get((one.group, one.name))),
        )
        for one in run.figures
    ]


def verdict(figure: Figure, before: Figure | None) -> str:
    if figure.aim is None or figure.value is None:
        return ""
    said = "met" if figure.aim.met(figure.value) else "MISSED"
    if before and before.value is not None and figure.aim.worse(figure.value, before.value):
        return f"{said}, worse: was {before.value:.2f}"
    return said


HEADINGS = ("Measure", "Ours", "Against", "Theirs", "Figure", "Aim", "")


def former(folder: Path, run: Run) -> Former:
    """Of this place and kind, over all that was kept: a run may have measured some groups alone."""
    newest: dict[tuple[str, str], Figure] = {}
    for path in sorted(folder.glob("*.json"), reverse=True):
        kept = read(json.loads(path.read_text()))
        if (kept.where, kept.kind) == (run.where, run.kind):
            newest = {(one.group, one.name): one for one in kept.figures} | newest
    return newest


def keep(folder: Path, run: Run) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.when.replace(':', '')}.json"
    path.write_text(json.dumps(run.written(), indent=1, ensure_ascii=False) + "\n")
    return path
