"""Figures of the main path, measured on two simulated Sparks: `python -m benchmarks.spine`.

Prints and writes benchmarks/spine.md: seconds and SSH connections per Spark of a preview without changes,
and seconds of an `up` from running Sparks to the first completion, in parts and for each engine; and
benchmarks/graphs.md: the resources of each engine as `pulumi preview` shows them.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import pulumi
from simulator import sparks
from simulator import up as simulation
from simulator.layout import Spark
from tests.e2e.conftest import Stack

REPEATS = 5
FILE = Path(__file__).with_suffix(".md")
GRAPHS = FILE.with_name("graphs.md")
MODEL = re.compile(r"cluster-weights-(\S+) created \(([\d.]+)s\)")
RAY = re.compile(r"cluster-ray-formed created \(([\d.]+)s\)")


def connections(spark: Spark) -> int:
    log = sparks.inside(spark, "cat", "/var/log/sshd.log")
    return log.count("Accepted publickey")


def main() -> None:
    nodes = simulation.up(3, print)
    try:
        rows = [*measure(nodes[:2]), *engines(nodes)]
        GRAPHS.write_text("\n".join(graphs(nodes[:2])))
    finally:
        simulation.down()
    lines = [
        "# Figures of the main path",
        "",
        f"Simulated Sparks, two where no number is given, {os.cpu_count()} cores, {pulumi.chosen().name};",
        "made by `python -m benchmarks.spine`.",
        "",
        "| What | Figure |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in rows),
    ]
    FILE.write_text("\n".join(lines) + "\n")
    print(FILE.read_text())


def measure(nodes: list[Spark]) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), "bench", nodes)
        began = time.monotonic()
        text = stack.up().text
        stack.complete()
        whole = time.monotonic() - began
        weights = sum(float(seconds) for _, seconds in MODEL.findall(text))
        ray = float(RAY.findall(text)[0])
        previews, dialled = [], []
        for _ in range(REPEATS):
            before = [connections(spark) for spark in nodes]
            began = time.monotonic()
            assert stack.is_clean()
            previews.append(time.monotonic() - began)
            dialled.append(max(connections(spark) - was for spark, was in zip(nodes, before, strict=True)))
        stack.destroy()
    return [
        ("`up` from running Sparks to the first completion", f"{whole:.1f} s"),
        ("of which Ray's own start and joining", f"{ray:.1f} s"),
        ("of which download, copy and checksums of the (toy) weights, one Spark after the other", f"{weights:.1f} s"),
        (f"preview without changes, median of {REPEATS}", f"{sorted(previews)[REPEATS // 2]:.1f} s"),
        ("SSH connections per Spark in such a preview, most of any Spark", str(max(dialled))),
    ]


@dataclass(frozen=True)
class Variant:
    counts: tuple[int, ...]
    config: dict[str, Any]


ENGINES = {
    "vLLM on Ray": Variant((2, 3), {}),
    "vLLM without Ray": Variant((1, 2), {"serving": {"executor": "mp"}}),
    "SGLang": Variant((1, 2), {"engine": "sglang"}),
    "TensorRT-LLM on Swarm": Variant((2,), {"engine": "trtllm"}),
    "TensorRT-LLM by MPI": Variant((1, 2), {"engine": "trtllm", "serving": {"launcher": "mpi"}}),
}


def engines(nodes: list[Spark]) -> Iterator[tuple[str, str]]:
    """Weights are in place: what remains is the engine's start and our own part."""
    for name, variant in ENGINES.items():
        for count in variant.counts:
            with tempfile.TemporaryDirectory() as folder:
                stack = Stack(Path(folder), "bench", nodes[:count], **variant.config)
                began = time.monotonic()
                stack.up()
                stack.complete()
                seconds = time.monotonic() - began
                stack.destroy()
            yield f"{name}, {count} Spark{'s' if count > 1 else ''}: `up` to first completion", f"{seconds:.1f} s"


def graphs(nodes: list[Spark]) -> Iterator[str]:
    """What a preview of a new stack lists, for each engine."""
    yield "# What is created, engine by engine"
    yield ""
    yield "As `pulumi preview` lists it for a new stack of two Sparks; made by `python -m benchmarks.spine`."
    for name, variant in ENGINES.items():
        with tempfile.TemporaryDirectory() as folder:
            stack = Stack(Path(folder), "graph", nodes, **variant.config)
            lines = stack("preview", "--stack", stack.name).text.splitlines()
        yield f"\n## {name}\n"
        yield from (f"    {line.strip()}" for line in lines if line.strip().startswith("+") and " create" in line)


if __name__ == "__main__":
    main()
