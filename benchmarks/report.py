"""The end of a run of `./spark measure`: it is kept, printed and drawn, with what has become worse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import chart, figures
from benchmarks.figures import Figure, Run

RESULTS = Path(__file__).with_name("results")
"""The history, of this machine alone: git leaves it out."""


def now(where: str, found: Sequence[Figure], *, quick: bool) -> Run:
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Run(when, where, list(found), "quick" if quick else "full")


def finish(run: Run, folder: Path = RESULTS, console: Console | None = None) -> None:
    before = figures.former(folder, run)
    path = figures.keep(folder, run)
    table = Table(title=f"{run.where}, {run.kind}", title_justify="left")
    for heading in figures.HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in figures.rows(run, before):
        table.add_row(*row)
    drawn = ", ".join(one.name for one in chart.keep(folder, run))
    console = console or Console()
    console.print(table)
    console.print(f"kept as {path}, drawn in {drawn}", soft_wrap=True, highlight=False)
