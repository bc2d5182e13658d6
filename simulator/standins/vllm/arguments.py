"""The command line of `vllm serve`, strict: built from the real one's own help text (flags.txt)."""

import argparse
import os
import re
import sys

FLAGS = os.path.join(os.path.dirname(__file__), "flags.txt")
TYPES = {
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "data_parallel_size": int,
    "data_parallel_size_local": int,
    "data_parallel_start_rank": int,
    "data_parallel_rpc_port": int,
    "max_model_len": str,
    "gpu_memory_utilization": float,
    "port": int,
    "nnodes": int,
    "node_rank": int,
    "master_port": int,
}
DEFAULTS = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "gpu_memory_utilization": 0.92,
    "port": 8000,
    "nnodes": 1,
    "node_rank": 0,
}


USAGE = """usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env,download-kernels,preload,run-batch,snapshot} ...
"""


def parse(words: list) -> argparse.Namespace:
    """What `vllm serve` makes of them. What it does not know is refused by `vllm`, of which it is a part."""
    arguments, unknown = parser().parse_known_args(words)
    if unknown:
        print(f"{USAGE}vllm: error: unrecognized arguments: {' '.join(unknown)}", file=sys.stderr)
        sys.exit(2)
    return arguments


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vllm serve", usage="vllm serve [model_tag] [options]", add_help=False, allow_abbrev=False
    )
    made.add_argument("model_tag", nargs="?")
    with open(FLAGS) as stream:
        for line in stream:
            if "|" in line and not line.startswith("#"):
                _add(made, line.split("|", 1)[1].strip())
    return made


def _add(made: argparse.ArgumentParser, text: str) -> None:
    # Names come first in each alternative; commas inside {choices} separate no alternatives.
    alternatives = [part for part in re.split(r",\s+(?=-)", text) if part.startswith("-")]
    names = [part.split()[0] for part in alternatives]
    wants_value = any(len(part.split()) > 1 for part in alternatives)
    if not wants_value:
        positive = [name for name in names if not name.startswith("--no-")]
        negative = [name for name in names if name.startswith("--no-")]
        made.add_argument(*positive, action="store_true", default=None)
        if negative:
            made.add_argument(*negative, action="store_false", dest=_dest(positive))
        return
    dest = _dest(names)
    many = "...]" in text
    made.add_argument(
        *names, nargs="+" if many else None, type=TYPES.get(dest, str), default=DEFAULTS.get(dest), dest=dest
    )


def _dest(names: list) -> str:
    return next(name for name in names if name.startswith("--"))[2:].replace("-", "_")
