"""`./spark bench --matrix`: the same measurement over models and engines, one after the other, on one stack.

A model that does not come up, or that is not measured, is a row of the result and stops nothing. The stack is put back
as it was at the end, also after Ctrl-C.
"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from components import catalog
from components.catalog import Entry
from components.settings import Settings
from ops import bench, pulumi
from ops.bench import Profile, Result
from ops.fits import judge
from ops.pulumi import CommandError
from ops.stack import Stack, of

console = Console(highlight=False, soft_wrap=True)

Status = Literal["OK", "UP_FAILED", "BENCH_FAILED", "SKIPPED"]

PICTURE = Path(__file__).parent / "picture.py"


@dataclass(frozen=True)
class Case:
    """One model on one engine."""

    entry: Entry
    engine: str

    @property
    def short(self) -> str:
        return f"{self.entry.name}_{self.engine}"


@dataclass(frozen=True)
class Row:
    model: str
    engine: str
    sparks: int
    concurrency: int
    status: Status
    why: str
    seconds: float
    """From the change of the stack to the model's first answer; 0 where it served already."""

    result: Result | None = None


@dataclass(frozen=True)
class Wanted:
    """What to measure. Empty lists: all."""

    models: Sequence[str] = ()
    engines: Sequence[str] = ()
    nodes: Literal["any", "single", "multi"] = "any"
    """single: models that fit one Spark; multi: those that need all of them."""

    skip_gated: bool = False
    concurrency: Sequence[int] = ()
    """Requests at a time, one run each; empty: the profile's own."""


def cases(where: Stack, wanted: Wanted) -> list[Case]:
    """In the catalog's order; what does not chat is left out unless it is named.

    Raises CommandError for a model that is not in it, or where nothing is left.
    """
    settings = where.settings
    known = [entry for entry in catalog.entries(settings.catalog) if entry.task in (None, "generate")]
    chosen = [_entry(name, settings.catalog) for name in wanted.models] or known
    engines = list(wanted.engines) or [settings.engine]
    found = [
        Case(entry, name)
        for entry in chosen
        for name in engines
        if _fits(entry, name, settings, wanted) and not (wanted.skip_gated and entry.gated)
    ]
    if not found:
        raise CommandError("no model of the catalog is left: `./spark models` shows which fit")
    return found


def _entry(name: str, own: str) -> Entry:
    entry = catalog.find(name, own)
    if entry is None:
        raise CommandError(f"{name} is not in the catalog (./spark models); add it with your own file (catalog)")
    return entry


def _fits(entry: Entry, name: str, settings: Settings, wanted: Wanted) -> bool:
    """Named models are tried whatever the estimate says."""
    alone, every = (judge(entry, name, count, settings.catalog).runs for count in (1, len(settings.nodes)))
    if wanted.nodes == "single" and not alone:
        return False
    if wanted.nodes == "multi" and alone:
        return False
    return bool(wanted.models) or every


def run(where: Stack, wanted: Wanted, profile: Profile, say: Callable[[str], None]) -> Path:
    """The folder with all results."""
    chosen = cases(where, wanted)
    folder = bench.RESULTS / f"matrix_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}"
    folder.mkdir(parents=True)
    file = where.where.file(where.stack)
    before, began, rows = file.read_text(), time.monotonic(), []
    # Before hours of work, not after.
    bench.environment()
    try:
        for number, case in enumerate(chosen, 1):
            say(f"{number} of {len(chosen)}: {case.entry.name} on {case.engine}")
            for row in _case(where, case, wanted, profile, folder):
                rows.append(row)
                say(f"  {row.status} {row.why}".rstrip())
                write(folder, rows, profile, time.monotonic() - began)
    finally:
        file.write_text(before)
        say("putting the former configuration back")
        if _pulumi(where, folder / "former_up.log", "up", "--yes", "--skip-preview") != 0:
            say(f"it did not come back: {folder / 'former_up.log'}")
    draw(folder)
    return folder


def _case(where: Stack, case: Case, wanted: Wanted, profile: Profile, folder: Path) -> Iterator[Row]:
    limits = list(wanted.concurrency) or [profile.concurrency or profile.prompts]
    nodes = len(where.settings.nodes)

    def row(concurrency: int, status: Status, why: str, seconds: float, result: Result | None = None) -> Row:
        return Row(case.entry.id, case.engine, nodes, concurrency, status, why, seconds, result)

    if case.entry.gated and where.where.config(where.stack, "hfToken") is None:
        yield row(limits[0], "SKIPPED", "gated, and the stack has no hfToken", 0.0)
        return
    began = time.monotonic()
    log = folder / f"{case.short}_up.log"
    for key, value in (("model", case.entry.name), ("engine", case.engine)):
        _pulumi(where, log, "config", "set", key, value)
    if _pulumi(where, log, "up", "--yes", "--skip-preview") != 0:
        yield row(limits[0], "UP_FAILED", f"see {log.name}", time.monotonic() - began)
        return
    seconds = time.monotonic() - began
    for concurrency in limits:
        wanted_now = replace(profile, concurrency=concurrency) if wanted.concurrency else profile
        try:
            # Its settings have changed, so they are read anew.
            result = bench.run(of(where.where, where.stack), wanted_now)
        except CommandError as error:
            yield row(concurrency, "BENCH_FAILED", str(error), seconds)
            continue
        status: Status = "OK" if result.failed == 0 else "BENCH_FAILED"
        yield row(concurrency, status, f"{result.failed} failed" if result.failed else "", seconds, result)


def _pulumi(where: Stack, log: Path, *words: str) -> int:
    with open(log, "a") as stream:
        return pulumi.run([*words, "--stack", where.stack], where.where.env, where.where.folder, stream)


COLUMNS = (
    "model",
    "engine",
    "sparks",
    "concurrency",
    "output_throughput",
    "total_throughput",
    "ttft_ms",
    "itl_ms",
    "e2e_ms",
    "status",
)


def cells(row: Row) -> dict[str, str]:
    """As in results.csv. Source of the columns: sglang-dgx-spark, benchmark_all.sh."""
    found = row.result
    figures = (
        (found.output_tokens_per_s, found.total_tokens_per_s, found.ttft_ms.mean, found.itl_ms.mean, found.e2e_ms.mean)
        if found
        else ()
    )
    shown = [f"{figure:.2f}" for figure in figures] or [""] * 5
    values = [row.model, row.engine, str(row.sparks), str(row.concurrency), *shown, row.status]
    return dict(zip(COLUMNS, values, strict=True))


def write(folder: Path, rows: Sequence[Row], profile: Profile, seconds: float) -> None:
    """All files anew after each row, so that an end at any moment loses nothing."""
    with open(folder / "results.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(cells(row) for row in rows)
    content = {
        "timestamp": folder.name.removeprefix("matrix_"),
        "profile": asdict(profile),
        "total_time_seconds": round(seconds, 1),
        "models_tested": len({(row.model, row.engine) for row in rows}),
        "results": [asdict(row) for row in rows],
    }
    (folder / "results.json").write_text(json.dumps(content, indent=1))
    with open(folder / "summary.txt", "w") as stream:
        summarize(rows, Console(file=stream, width=150))


def summarize(rows: Sequence[Row], out: Console) -> None:
    """The matrix, and two rankings of what was measured."""
    table = Table(title="Models and engines", title_justify="left")
    for heading in (
        "Model",
        "Engine",
        "At a time",
        "Output tok/s",
        "Total tok/s",
        "TTFT ms",
        "ITL ms",
        "E2E ms",
        "Status",
    ):
        table.add_column(heading, overflow="fold")
    for row in rows:
        shown = cells(row)
        table.add_row(*(shown[key] for key in COLUMNS if key != "sparks"))
    out.print(table)
    measured = [(row, row.result) for row in rows if row.result]
    rankings = (
        ("Most output tokens per second", lambda one: -one[1].output_tokens_per_s, "{0.output_tokens_per_s:.1f} tok/s"),
        ("Soonest first token", lambda one: one[1].ttft_ms.mean, "{0.ttft_ms.mean:.0f} ms"),
    )
    for title, key, form in rankings:
        out.print(f"\n{title}:")
        for place, (row, result) in enumerate(sorted(measured, key=key), 1):
            out.print(f"  {place}. {row.model} on {row.engine}, {row.concurrency} at a time: {form.format(result)}")


def draw(folder: Path) -> None:
    """picture.png, by matplotlib, which AIPerf's environment has."""
    python = bench.environment() / "bin" / "python"
    done = subprocess.run([str(python), str(PICTURE), str(folder)], capture_output=True, text=True)
    if done.returncode:
        console.print(f"no picture: {done.stderr.strip().splitlines()[-1:]}")


def plan(where: Stack, wanted: Wanted, profile: Profile) -> None:
    """What would be measured (`--dry-run`)."""
    for case in cases(where, wanted):
        gated = " (gated)" if case.entry.gated else ""
        console.print(f"{case.entry.id}{gated} on {case.engine}, {len(where.settings.nodes)} Sparks, {profile.name}")
