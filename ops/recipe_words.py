"""A recipe's serve command: which engine it starts, with which options. Text is read and nothing of it is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class NotRead(Exception):
    """The words are no command that can be taken over; the message says why."""


@dataclass(frozen=True)
class Command:
    """`vllm serve`, `sglang serve` or `trtllm-serve`, apart."""

    engine: str
    model: str
    """'' where only the recipe's own key names it."""

    options: tuple[tuple[str, tuple[str, ...]], ...]
    """(--name, values) in their order; none: a switch. Names have hyphens, TensorRT-LLM's underscores."""

    environment: Mapping[str, str]
    """Assignments in front of it."""

    rest: str
    """What the shell would run after it; '' for nothing."""


STARTS = (
    ("vllm", ("vllm", "serve")),
    ("sglang", ("sglang", "serve")),
    ("sglang", ("python3", "-m", "sglang.launch_server")),
    ("sglang", ("python", "-m", "sglang.launch_server")),
    ("trtllm", ("trtllm-serve",)),
)
SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size"}
PLACEHOLDER = re.compile(r"(\{\{)|(\}\})|\{([A-Za-z_]\w*)\}")
ROUNDS = 5
"""How deep a value may name others; sparkrun's templates do so once or twice."""


def filled(template: str, values: Mapping[str, Any], *, doubled: bool) -> str:
    """The template with its placeholders' values; those without one stay.

    doubled   `{{` and `}}` stand for braces, as in eugr's recipes, which go through Python's str.format
    """

    def once(found: re.Match[str]) -> str:
        if found[3] is None:
            return found[0][0] if doubled else found[0]
        return str(values[found[3]]) if found[3] in values else found[0]

    text = PLACEHOLDER.sub(once, template)
    for _ in range(0 if doubled else ROUNDS):
        text = PLACEHOLDER.sub(once, text)
    return text


def read(text: str, model: str = "") -> Command:
    """Raises NotRead where it starts no engine that is known here, or is no shell's words at all.

    model   as the recipe names it: that word is no option's value
    """
    plain = re.sub(r"\A(\s*#.*\n)+", "", text)
    words, rest = _split(re.sub(r"\\[ \t]*\n", " ", plain).strip())
    environment: dict[str, str] = {}
    while words and (found := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
        environment[found[1]] = found[2]
        words = words[1:]
    if words[:1] == ["exec"]:
        words = words[1:]
    if words[:1] == ["mpirun"]:
        words = words[next((n for n, word in enumerate(words) if word == "trtllm-serve"), 0) :]
    for engine, start in STARTS:
        if tuple(words[: len(start)]) == start:
            named, options = _options(words[len(start) :], engine, model)
            return Command(engine, named, options, environment, rest)
    raise NotRead(
        f"starts {' '.join(words[:2]) or 'nothing'}: only vllm serve, sglang serve and trtllm-serve are known"
    )


def _split(text: str) -> tuple[list[str], str]:
    """(words of the first command, what comes after it)."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    try:
        for word in lexer:
            if word.strip(";&|<>()\n") == "":
                return words, " ".join([word.strip(), *lexer]).strip()
            words.append(word)
    except ValueError as error:
        raise NotRead(f"is no shell command: {str(error).lower()}") from None
    return words, ""


def _options(words: Sequence[str], engine: str, model: str) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """(the model in its place, the options)."""
    named, options, left = "", [], list(words)
    while left:
        word = left.pop(0)
        if not _is_option(word):
            named = named or word
            continue
        name, equals, value = word.partition("=")
        values = [value] if equals else []
        while not equals and left and not _is_option(left[0]) and left[0] != model:
            values.append(left.pop(0))
        options.append((_name(name, engine), tuple(values)))
    return named, tuple(options)


def _is_option(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word)


def _name(written: str, engine: str) -> str:
    """vLLM and SGLang take hyphens, and underscores for them; what follows a dot is a key of JSON."""
    written = SHORT.get(written, written)
    if engine == "trtllm":
        return written
    front, dot, key = written.partition(".")
    return front.replace("_", "-") + dot + key
