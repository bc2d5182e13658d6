"""`./spark models`: what can be served on these Sparks, how fast others say it is, and what it costs to try."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from components import catalog
from components.catalog import Entry, Served, Throughput
from components.plan.engines.registry import ENGINES
from components.plan.memory import SHORTEST_CONTEXT
from components.problems import Refused
from ops.fits import Verdict, judge
from ops.project import configured, short
from ops.pulumi import ROOT, CommandError

MOST = 8
"""Sparks of one stack, at most."""

COPIED = 1.2
"""10^9 bytes per second that leave the head for all others together. Source: 476 GB to three Sparks in about 20 minutes
(tonyd2wild, DeepSeek-V4.1-Flash issue 11)."""

BEGIN, PER_GB = 2.0, 7 / 60
"""Minutes from a server's start to its first answer, and for each 10^9 bytes of weights on a Spark. Between what was
said of pairs: 6 minutes for 83 GB on each (MiaAI-Lab, DeepSeek V4 Flash) and 15 for 62 (conselara.dev, Qwen3-235B)."""

Sort = Literal["name", "size", "speed", "context", "minutes"]


@dataclass(frozen=True)
class Hardware:
    sparks: int
    engine: str
    catalog: str


@dataclass(frozen=True)
class Wanted:
    """Which rows, in which order."""

    words: Sequence[str] = ()
    """Each in the name, the repository or the quantisation."""

    fitting: bool = False
    task: str | None = None
    sort: Sort | None = None
    """None: as the catalog has them."""

    mbps: float = 500
    """10^6 bits per second from the hub."""


def hardware(stack: str | None, sparks: int | None, engine: str | None) -> Hardware:
    """From the stack's file, with what the command line says on top; without a stack, two Sparks and vLLM."""
    config: dict[str, Any] = {}
    if stack:
        path = ROOT / f"Pulumi.{short(stack)}.yaml"
        if not path.exists():
            raise CommandError(f"there is no {path.name}: name a stack of this project")
        config = configured(path)
    nodes = config.get("dgx-spark:nodes") or []
    chosen = engine or config.get("dgx-spark:engine", "vllm")
    if chosen not in ENGINES:
        raise CommandError(f"there is no engine {chosen}: {', '.join(ENGINES)}")
    return Hardware(min(sparks or len(nodes) or 2, MOST), chosen, config.get("dgx-spark:catalog", ""))


def rows(where: Hardware, wanted: Wanted | None = None) -> list[dict[str, Any]]:
    """One row per model of the catalog, with its fit on one Spark and on the whole cluster."""
    chosen = wanted or Wanted()
    try:
        known = catalog.entries(where.catalog)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    found = [_row(entry, where, chosen) for entry in known if _asked_for(entry, chosen)]
    if chosen.fitting:
        found = [row for row in found if row["fits"][str(where.sparks)]["runs"]]
    return sorted(found, key=ORDERS[chosen.sort]) if chosen.sort else found


def _asked_for(entry: Entry, wanted: Wanted) -> bool:
    text = f"{entry.name} {entry.id} {entry.quantization or ''}".lower()
    return all(word.lower() in text for word in wanted.words) and wanted.task in (None, entry.task or "generate")


def _row(entry: Entry, where: Hardware, wanted: Wanted) -> dict[str, Any]:
    verdicts = {str(n): judge(entry, where.engine, n, where.catalog) for n in sorted({1, where.sparks})}
    return {
        "name": entry.name,
        "id": entry.id,
        "quantization": entry.quantization,
        "weights_gb": entry.weights_gb,
        "download_gb": entry.download_gb,
        "gated": entry.gated,
        "min_sparks": entry.min_sparks,
        "fits": {count: {**asdict(verdict), "runs": verdict.runs} for count, verdict in verdicts.items()},
        "minutes": minutes(entry, where.sparks, wanted.mbps),
        "throughput": [one.model_dump() for one in entry.throughput],
        "speed": [one.model_dump() for one in speeds(entry, where)],
        "note": entry.note,
    }


ORDERS: dict[Sort, Callable[[dict[str, Any]], Any]] = {
    "name": lambda row: row["name"],
    "size": lambda row: row["download_gb"] or 0,
    "speed": lambda row: -max((one["tokens_per_second"] for one in row["speed"] if one["requests"] == 1), default=0),
    "context": lambda row: -max(fit["longest"] for fit in row["fits"].values()),
    "minutes": lambda row: sum(row["minutes"].values()),
}


def minutes(entry: Entry, sparks: int, mbps: float) -> dict[str, float]:
    """About how long to the first answer where nothing is there yet but the image."""
    download, loaded = entry.download_gb or 0, entry.weights_gb or 0
    found = {
        "download": download * 8000 / mbps / 60,
        "copy": download * (sparks - 1) / COPIED / 60,
        "start": BEGIN + PER_GB * loaded / sparks,
    }
    return {step: round(value, 1) for step, value in found.items()}


def speeds(entry: Entry, where: Hardware) -> list[Throughput]:
    """What others measured on as many Sparks, on this engine first; else on another number of them."""
    own = [one for one in entry.throughput if one.sparks == where.sparks]
    return sorted(own or entry.throughput, key=lambda one: (one.engine != where.engine, one.requests))


def show(where: Hardware, wanted: Wanted, *, as_json: bool) -> None:
    found = rows(where, wanted)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    counts = sorted({1, where.sparks})
    title = f"{len(found)} models for {where.engine} on {_sparks(where.sparks)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Name, Hugging Face repository", overflow="fold", min_width=32)
    table.add_column("GB", justify="right")
    for count in counts:
        table.add_column(_sparks(count), overflow="fold")
    table.add_column("Min", justify="right")
    table.add_column("Said to be (tok/s)", overflow="fold")
    for row in found:
        fits = [_words(row["fits"][str(count)]) for count in counts]
        name = f"[bold]{row['name']}[/bold]\n[dim]{row['id']}{' (gated)' if row['gated'] else ''}[/dim]"
        total = sum(row["minutes"].values())
        table.add_row(name, f"{row['download_gb'] or '?'}", *fits, f"{total:.0f}" if total else "?", _said(row, where))
    console = Console()
    console.print(table)
    console.print(
        "Fits: by estimate, with the longest context in tokens. GB: to download. Min: minutes to the first answer, at "
        f"{wanted.mbps:g} Mbit/s, about; where weights are in place the start alone. Speeds were measured by others, "
        "whom --json names.\n"
        "Any other Hugging Face repository works too: pulumi config set model ORG/NAME && pulumi preview"
    )


def _sparks(count: int) -> str:
    return f"{count} Spark{'s' * (count > 1)}"


def _said(row: dict[str, Any], where: Hardware) -> str:
    """The first two figures; what differs from these Sparks and this engine is named."""
    words = []
    for one in row["speed"][:2]:
        about = [f"{one['requests']} at a time"] if one["requests"] > 1 else []
        about += [one["engine"]] if one["engine"] != where.engine else []
        about += [f"on {one['sparks']}"] if one["sparks"] != where.sparks else []
        words.append(f"{one['tokens_per_second']:g}" + (f" ({', '.join(about)})" if about else ""))
    return "; ".join(words)


def _words(fit: dict[str, Any]) -> str:
    if fit["runs"]:
        return f"{'tight' if fit['word'] == 'tight' else 'yes'} {_thousands(fit['longest'])}"
    if fit["word"] == "does not fit":
        return f"to {_thousands(fit['longest'])}" if fit["longest"] >= SHORTEST_CONTEXT else "no"
    return "?" if fit["word"] == "unknown" else str(fit["word"])


DOCUMENT = ROOT / "docs" / "models.md"
MARK = "<!-- made by `./spark docs` from components/catalog/models.yaml -->\n"
COUNTS = (1, 2, 3, 4)


def documented() -> str:
    """The table in docs/models.md: every entry on every engine and on one to four Sparks."""
    head = f"| Model | Engine | {' | '.join(map(_sparks, COUNTS))} | Why not, or what to know |"
    lines = [head, "|---|---|" + "---|" * (len(COUNTS) + 1)]
    for entry in sorted(catalog.entries(), key=lambda one: one.name):
        for engine in ENGINES:
            verdicts = [judge(entry, engine, count) for count in COUNTS]
            cells = " | ".join(_cell(verdict) for verdict in verdicts)
            name = entry.name if engine == next(iter(ENGINES)) else ""
            mark = "" if said(entry, engine) else " *"
            lines.append(f"| {name} | {engine}{mark} | {cells} | {_why(entry, engine, verdicts)} |")
    return "\n".join(lines) + "\n"


def said(entry: Entry, engine: str) -> bool:
    """Somebody has said how this engine serves it, or how fast."""
    return entry.served(engine) != Served() or any(one.engine == engine for one in entry.throughput)


def _cell(verdict: Verdict) -> str:
    layout = f", PP {verdict.pipeline}" if verdict.pipeline > 1 else ""
    layout = f", TP {verdict.tensor}{layout}" if layout and verdict.tensor > 1 else layout
    if verdict.runs:
        return f"{verdict.word} {_thousands(verdict.longest)}{layout}"
    return f"fits to {_thousands(verdict.longest)}" if _shortened(verdict) else verdict.word


def _shortened(verdict: Verdict) -> bool:
    return verdict.word == "does not fit" and verdict.longest >= SHORTEST_CONTEXT


def _thousands(tokens: int) -> str:
    return f"{tokens // 1000}K" if tokens < 1_000_000 else f"{tokens / 1e6:.1f}M"


def _why(entry: Entry, engine: str, verdicts: Sequence[Verdict]) -> str:
    """Of each kind of refusal the first one's reason, without the repository's name."""
    reasons = {verdict.word: verdict.why for verdict in reversed(verdicts) if not verdict.runs}
    found = [reason.removeprefix(f"{entry.id} ").removeprefix("does not fit: ") for reason in reasons.values()]
    trouble = entry.served(engine).trouble
    return "; ".join([*found, *([trouble] if trouble else [])]).replace("|", "\\|")


def write() -> Path:
    """Put the table at the end of docs/models.md, in the place of the one that is there."""
    before, _, _ = DOCUMENT.read_text().partition(MARK)
    DOCUMENT.write_text(before + MARK + documented())
    return DOCUMENT
