"""The command line of `trtllm-serve`, strict: built from the real one's declarations (flags.txt)."""

import argparse
import os

FLAGS = os.path.join(os.path.dirname(__file__), "flags.txt")
TYPES = {"int": int, "float": float, "str": str, "path": str}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="trtllm-serve serve", add_help=False, allow_abbrev=False)
    made.add_argument("model")
    with open(FLAGS) as stream:
        for line in stream:
            if not line.startswith("#"):
                names, kind, *default = [column.strip() for column in line.split("|")]
                _add(made, names.split(", "), kind, default[0] if default else None)
    return made


def _add(made: argparse.ArgumentParser, names: list, kind: str, default) -> None:
    if kind == "flag":
        made.add_argument(*names, action="store_true")
        return
    convert = TYPES.get(kind, str)
    choices = None if kind in TYPES else kind.split(",")
    made.add_argument(*names, type=convert, choices=choices, default=None if default is None else convert(default))
