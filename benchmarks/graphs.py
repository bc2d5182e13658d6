"""The resources of each engine, as `pulumi preview` shows them: `python -m benchmarks.graphs` writes graphs.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simulator import up as simulation
from simulator.layout import Spark
from tests.e2e.conftest import Stack

FILE = Path(__file__).with_suffix(".md")
ENGINES: dict[str, dict[str, Any]] = {
    "vLLM on Ray": {},
    "vLLM without Ray": {"serving": {"executor": "mp"}},
    "SGLang": {"engine": "sglang"},
    "TensorRT-LLM on Swarm": {"engine": "trtllm"},
    "TensorRT-LLM by MPI": {"engine": "trtllm", "serving": {"launcher": "mpi"}},
}


def main() -> None:
    nodes = simulation.up(2, print)
    try:
        FILE.write_text("\n".join(graphs(nodes)) + "\n")
    finally:
        simulation.down()


def graphs(nodes: list[Spark]) -> Iterator[str]:
    """What a preview of a new stack lists, for each engine."""
    yield "# What is created, engine by engine"
    yield ""
    yield "As `pulumi preview` lists it for a new stack of two Sparks; made by `python -m benchmarks.graphs`."
    for name, config in ENGINES.items():
        with tempfile.TemporaryDirectory() as folder:
            stack = Stack(Path(folder), "graph", nodes, **config)
            lines = stack("preview", "--stack", stack.name).text.splitlines()
        yield f"\n## {name}\n"
        steps = (line.split() for line in lines)
        # Resources whose turn comes at once are listed in any order.
        made = sorted((kind, name) for _, kind, name, _ in filter(is_made, steps))
        yield from (f"    {kind:<38} {name}" for kind, name in made)


def is_made(words: Sequence[str]) -> bool:
    """A line of a preview: `+ TYPE NAME create`, and not the sum of them."""
    return len(words) == 4 and words[0] == "+" and words[-1] == "create" and ":" in words[1]


if __name__ == "__main__":
    main()
