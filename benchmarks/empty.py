"""A program without resources, under the same Pulumi and with the same packages: what a preview costs anyone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops import pulumi

STACK = "empty"
PROJECT = "name: empty\nruntime: {name: python, options: {toolchain: pip, virtualenv: .venv}}\n"


class Empty:
    """Its stack is up; the state is in its folder, whatever the backend of others."""

    def __init__(self, folder: Path, argv: Sequence[str]) -> None:
        """`argv`: of Pulumi."""
        self._folder, self._argv = folder, argv
        folder.mkdir()
        (folder / "__main__.py").write_text("import pulumi\n")
        (folder / "Pulumi.yaml").write_text(PROJECT)
        # The Pulumi CLI looks for it beside the program.
        (folder / ".venv").symlink_to(sys.prefix)
        self._environment = pulumi.with_plugins(pulumi.environment(folder / "state"))
        self._run("stack", "init", STACK)
        self._run("up", "--yes", "--skip-preview", "--stack", STACK)

    def preview(self) -> None:
        self._run("preview", "--expect-no-changes", "--diff", "--stack", STACK)

    def _run(self, *words: str) -> None:
        argv = [*self._argv, *words]
        done = subprocess.run(argv, env=self._environment, cwd=self._folder, capture_output=True, text=True)
        if done.returncode:
            raise pulumi.CommandError(f"an empty program's {words[0]} failed:\n{done.stderr}{done.stdout}")
