"""A picture of a group of figures: bars of ours beside what they are measured against."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Run, spread, verdict

WIDTH = 118
"""Characters of a line."""

BAR = 34
OURS, THEIRS = "#76b900", "#888888"

FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def svg(console: Console, title: str) -> str:
    """What a recording console printed. Whoever looks has a monospaced font, and should ask nobody for another one."""
    return FONTS.sub("", console.export_svg(title=title))


def recording() -> Console:
    return Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # ends with the program


def drawn(group: str, figures: Sequence[Figure], about: str) -> str:
    """As SVG; bars of one unit have one scale."""
    most: dict[str, float] = {}
    for one in figures:
        most[one.unit] = max([most.get(one.unit, 0.0), *one.ours, *one.theirs])
    table = Table(box=None, show_header=False, caption=about, caption_justify="left")
    for one in figures:
        aim = (
            f"{one.value:.2f}, aim {one.aim.text()}: {verdict(one, None)}" if one.aim and one.value is not None else ""
        )
        table.add_row(f"[bold]{one.name}[/]", "", aim)
        for name, values, colour in (("ours", one.ours, OURS), (one.against, one.theirs, THEIRS)):
            if values:
                bar = Bar(most[one.unit] or 1, 0, median(values), width=BAR, color=colour)
                table.add_row(f"  {name}", bar, spread(values, one.unit))
    console = recording()
    console.print(table)
    return svg(console, group)


def keep(folder: Path, run: Run) -> list[Path]:
    """One file per group, of the newest run in which it was measured."""
    paths = []
    for group in dict.fromkeys(one.group for one in run.figures):
        path = folder / f"{group}.svg"
        path.write_text(
            drawn(group, [one for one in run.figures if one.group == group], f"{run.when[:16]}, {run.where}")
        )
        paths.append(path)
    return paths
