"""The real command lines, with nothing behind them; and the commands that a text tells people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer

Path = tuple[str, ...]


def commands(app: typer.Typer) -> Iterator[tuple[Path, Any]]:
    """Path → command, groups included: ("stack", "init")."""
    return _below((), typer.main.get_command(app))


def _below(path: Path, command: Any) -> Iterator[tuple[Path, Any]]:
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from _below((*path, name), sub)


def parse(app: typer.Typer, words: Sequence[str]) -> None:
    """Raises what the command line would say of a command, option or value that there is not."""
    root = typer.main.get_command(app)
    for _, command in _below((), root):
        command.callback = lambda *_, **__: None
    root.main(list(words), prog_name="x", standalone_mode=False)


def told(text: str) -> list[list[str]]:
    """`./spark` and `pulumi` commands of a Markdown text, as the shell splits them, one for each of an && list."""
    blocks = re.findall(r"^ {4}((?:\./spark|pulumi) .*)$", text, re.MULTILINE)
    found = []
    for line in [*blocks, *re.findall(r"`((?:\./spark|pulumi) [^`\n]+)`", text)]:
        words = shlex.split(line, comments=True)
        while "&&" in words:
            end = words.index("&&")
            found.append(words[:end])
            words = words[end + 1 :]
        found.append(words)
    return found
