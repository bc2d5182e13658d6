"""A model as its repository shows it: one commit, its files and its configuration. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECOND_COPIES = ("original/*", "metal/*", "consolidated*", "*.pth", "*.gguf")
"""Files that repeat the weights in another format; nothing loads them. openai/gpt-oss-120b alone would
be 196 GB instead of 65. Source: listings of the repositories, facts.md C and G3."""


@dataclass(frozen=True)
class File:
    """One file of a repository at a commit."""

    path: str
    size: int
    """Bytes."""

    sha256: str | None
    """Of files in large-file storage; None for small ones, which git names by another hash."""


@dataclass(frozen=True)
class Model:
    """A model at one commit."""

    repo: str
    commit: str
    files: tuple[File, ...]
    """Only what is downloaded (see SECOND_COPIES)."""

    config: dict[str, Any]
    """Its config.json: geometry, by the names of the transformers library."""

    path: str = ""
    """Of a model that is no repository: its directory, the same on every Spark; `repo` is that too, then."""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def excluded(path: str, patterns: Sequence[str] = SECOND_COPIES) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
