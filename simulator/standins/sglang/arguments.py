"""The command line of `sglang.launch_server`, strict: built from the real one's declarations (flags.txt)."""

import argparse
import os

FLAGS = os.path.join(os.path.dirname(__file__), "flags.txt")
NUMBERS = {"int": int, "float": float, "Optional[int]": int, "Optional[float]": float}
DEFAULTS = {"host": "127.0.0.1", "port": 30000, "tp_size": 1, "pp_size": 1, "nnodes": 1, "node_rank": 0}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="launch_server.py", usage="launch_server.py [options]", add_help=False, allow_abbrev=False
    )
    with open(FLAGS) as stream:
        for line in stream:
            if not line.startswith("#"):
                _add(made, [column.strip() for column in line.split("|")])
    return made


def _add(made: argparse.ArgumentParser, columns: list) -> None:
    _, names, kind, *rest = columns
    flags = [name.strip() for name in names.split(",")]
    dest = flags[0][2:].replace("-", "_")
    action = rest[-1] if len(rest) > 2 else ""
    if "BooleanOptionalAction" in action:
        made.add_argument(*flags, action=argparse.BooleanOptionalAction, dest=dest)
    elif kind == "bool" or "StoreTrue" in action:
        made.add_argument(*flags, action="store_true", dest=dest)
    else:
        many = "+" if "List[" in kind else None
        made.add_argument(*flags, type=NUMBERS.get(kind, str), nargs=many, default=DEFAULTS.get(dest), dest=dest)
