"""`./spark models`: the catalog, and what of it fits a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from components import catalog
from components.catalog import Entry
from components.plan.checks import known_cache
from components.plan.fit import Load, estimate
from components.problems import Refused
from ops.pulumi import ROOT, CommandError

DEFAULT_CONTEXT = 8192
"""Tokens, where the catalog names no length."""


@dataclass(frozen=True)
class Hardware:
    sparks: int
    engine: str
    catalog: str


def hardware(stack: str | None, sparks: int | None, engine: str | None) -> Hardware:
    """From the stack's file, with what the command line says on top; without a stack, two Sparks and vLLM."""
    config: dict[str, Any] = {}
    if stack:
        path = ROOT / f"Pulumi.{stack}.yaml"
        if not path.exists():
            raise CommandError(f"there is no {path.name}: name a stack of this project")
        config = (yaml.safe_load(path.read_text()) or {}).get("config", {})
    nodes = config.get("dgx-spark:nodes") or []
    return Hardware(
        sparks or len(nodes) or 2,
        engine or config.get("dgx-spark:engine", "vllm"),
        config.get("dgx-spark:catalog", ""),
    )


def rows(where: Hardware) -> list[dict[str, Any]]:
    """One row per model of the catalog, with its fit on one Spark and on the whole cluster."""
    try:
        known = catalog.entries(where.catalog)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    return [_row(entry, where) for entry in known]


def _row(entry: Entry, where: Hardware) -> dict[str, Any]:
    counts = sorted({1, where.sparks})
    return {
        "name": entry.name,
        "id": entry.id,
        "quantization": entry.quantization,
        "weights_gb": entry.weights_gb,
        "gated": entry.gated,
        "context": _context(entry, where.engine),
        "fits": {str(count): fits(entry, where.engine, count) for count in counts},
        "throughput": [published.model_dump() for published in entry.throughput],
    }


def _context(entry: Entry, engine: str) -> int:
    return entry.served(engine).max_model_len or entry.vllm.max_model_len or DEFAULT_CONTEXT


def fits(entry: Entry, engine: str, sparks: int) -> dict[str, Any] | None:
    """By estimate, over `sparks` Sparks; None where the catalog knows too little."""
    if entry.weights_gb is None or entry.geometry is None:
        return None
    heads = entry.geometry.heads
    tensor, pipeline = (sparks, 1) if heads % sparks == 0 else (1, sparks)
    found = estimate(
        Load(
            engine=engine,
            weights=int(entry.weights_gb * 1e9),
            cache=known_cache(entry, engine),
            tensor=tensor,
            pipeline=pipeline,
            context=_context(entry, engine),
            longest=entry.geometry.max_length,
            share=entry.served(engine).gpu_memory_utilization,
        )
    )
    return {"fits": found.fits, "tight": found.tight, "longest_context": found.longest_context}


def show(where: Hardware, *, as_json: bool) -> None:
    found = rows(where)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    counts = sorted({1, where.sparks})
    table = Table(title=f"Models for {where.engine}; context: the longest that fits, by estimate", title_justify="left")
    for heading in ("Name", "Hugging Face repository", "GB", *(f"{n} Spark{'s' * (n > 1)}" for n in counts)):
        table.add_column(heading, justify="right" if heading == "GB" else "left", overflow="fold")
    table.add_column("Published", overflow="fold")
    for row in found:
        cells = [_words(row["fits"][str(count)]) for count in counts]
        gated = " (gated)" if row["gated"] else ""
        table.add_row(
            row["name"], row["id"] + gated, f"{row['weights_gb'] or '?'}", *cells, _published(row["throughput"], counts)
        )
    console = Console()
    console.print(table)
    console.print("Any other Hugging Face repository works too: pulumi config set model ORG/NAME && pulumi preview")


def _published(throughput: list[dict[str, Any]], counts: list[int]) -> str:
    """Tokens per second of one request, on as many Sparks."""
    single = (one for one in throughput if one["requests"] == 1 and one["sparks"] in counts)
    return "; ".join(f"{one['tokens_per_second']:g} tok/s ({one['engine']}, {one['sparks']})" for one in single)


def _words(fit: dict[str, Any] | None) -> str:
    if fit is None:
        return "?"
    if fit["fits"]:
        return f"{'tight' if fit['tight'] else 'yes'}, {fit['longest_context']:,}"
    return f"to {fit['longest_context']:,}" if fit["longest_context"] >= 1024 else "no"
