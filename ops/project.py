"""A folder with Pulumi.yaml and its stacks, as the commands use them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from components.settings import PROJECT
from ops import pulumi
from ops.pulumi import ROOT, CommandError

Confirm = Callable[[str], bool]
"""Asks the person at the terminal; True: go on."""

ORG_OF_FILES = "organization"
"""What Pulumi calls the organization of every stack whose state is in files, also in a bucket."""


@dataclass(frozen=True)
class Project:
    """A folder with Pulumi.yaml, and how Pulumi is run in it."""

    folder: Path
    env: Mapping[str, str]

    @property
    def is_demo(self) -> bool:
        return self.env.get("PULUMI_BACKEND_URL") == f"file://{pulumi.DEMO_STATE}"

    def run(self, *words: str) -> int:
        return pulumi.run(words, self.env, self.folder)

    def up(self, stack: str) -> bool:
        return self.run("up", "--yes", "--skip-preview", "--stack", stack) == 0

    def stacks(self) -> dict[str, bool]:
        """Name → is it the selected one. As Pulumi says it: ORG/STACK where that is not one's default organization."""
        found = json.loads(pulumi.output(["stack", "ls", "--json"], self.env, self.folder))
        return {stack["name"]: bool(stack.get("current")) for stack in found}

    def full(self, stack: str) -> str:
        """ORG/PROJECT/STACK, as the program gets it. Raises CommandError where there is no such stack."""
        words = ["stack", "--show-name", "--fully-qualify-stack-names", "--stack", stack]
        found = pulumi.output(words, self.env, self.folder)
        # A file backend from before projects names the stack alone, but the program gets this organization there too.
        return found if "/" in found else f"{ORG_OF_FILES}/{PROJECT}/{found}"

    def changes(self, stack: str) -> list[str]:
        """Names of the resources that an `up` would touch. Raises CommandError where the preview is refused."""
        steps = json.loads(pulumi.output(["preview", "--json", "--stack", stack], self.env, self.folder))["steps"]
        touched = (step for step in steps if step["op"] not in ("same", "refresh", "read"))
        # Components follow what is in them.
        own = (step["urn"].split("::") for step in touched)
        return [name for _, _, kinds, name in own if not kinds.rsplit("$", 1)[-1].startswith("dgx-spark:")]

    def chosen(self, name: str | None) -> str:
        """As in `stacks`. `name` is as for Pulumi's own --stack; None: the selected one, or the only one.

        Raises CommandError where that is none.
        """
        known = self.stacks()
        selected = next((stack for stack, current in known.items() if current), None)
        stack = name or selected or (next(iter(known)) if len(known) == 1 else None)
        if name and "/" in name and name not in known:
            namesakes = (one for one in known if short(one) == short(name))
            stack = next((one for one in namesakes if name in spellings(self.full(one))), None)
        if stack is None or stack not in known:
            there = ", ".join(known) or "none"
            if name:
                raise CommandError(f"there is no stack {name}, but {there}: pulumi stack init {name}")
            raise CommandError(f"which stack? There is {there}: name one with --stack")
        return stack

    def file(self, stack: str) -> Path:
        return self.folder / f"Pulumi.{short(stack)}.yaml"

    def config(self, stack: str, key: str) -> Any:
        return configured(self.file(stack)).get(f"dgx-spark:{key}")


def text(file: Path) -> str:
    """A stack's file. Raises CommandError where there is none."""
    try:
        return file.read_text()
    except FileNotFoundError:
        stack = file.stem.removeprefix("Pulumi.")
        raise CommandError(
            f"there is no {file}: bring it from where the stack was made, or have what was last deployed written by "
            f"`pulumi config refresh --stack {stack}`"
        ) from None


def document(file: Path) -> dict[str, Any]:
    """What a stack's file or Pulumi.yaml says; empty where there is none. Raises CommandError for a slip in it."""
    try:
        found = (yaml.safe_load(file.read_bytes()) if file.exists() else None) or {}
    except yaml.MarkedYAMLError as error:
        # Where it can't be read on, which a slip above may have brought about.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CommandError(f"{file}, line {line}: {error.problem}; correct it there or just above") from None
    except yaml.YAMLError as error:
        raise CommandError(f"{file}: {' '.join(str(error).split())}; write it in UTF-8") from None
    if not isinstance(found, dict) or not isinstance(found.get("config") or {}, dict):
        raise CommandError(
            f"{file} has no settings below a line `config:`; write one a line there, `  dgx-spark:KEY: VALUE`"
        )
    return found


def configured(file: Path) -> dict[str, Any]:
    """The settings in a stack's file, with their prefixes."""
    found: dict[str, Any] = document(file).get("config") or {}
    return found


def short(stack: str) -> str:
    """STACK of however much is said, as names of files have it."""
    return stack.rsplit("/", 1)[-1]


def spellings(full: str) -> tuple[str, ...]:
    """Of ORG/PROJECT/STACK, what names it in whatever organization is one's default."""
    organization, _, stack = full.split("/")
    return full, f"{organization}/{stack}"


def named(words: Sequence[str]) -> str | None:
    """The stack that Pulumi's words name."""
    for word, following in pairwise([*words, ""]):
        if word in ("--stack", "-s"):
            return following
        if word.startswith("--stack="):
            return word.removeprefix("--stack=")
    return None


def pass_on(words: Sequence[str]) -> int:
    """Run `pulumi WORDS` on the demonstration's stack or on one of real Sparks; the exit code."""
    return project(named(words)).run(*words)


def project(stack: str | None) -> Project:
    """This one; the demonstration keeps its state in files of its own. Every command that runs Pulumi comes by here.

    For real Sparks the Pulumi CLI is fetched where there is none. Raises CommandError where it can't be: the hermetic
    engine is test equipment.
    """
    its_names = ("demo", *spellings(f"{ORG_OF_FILES}/{PROJECT}/demo"))
    if stack in its_names or (stack is None and "PULUMI_BACKEND_URL" not in os.environ and pulumi.DEMO_STATE.exists()):
        return Project(ROOT, pulumi.environment())
    if not (pulumi.fetch(_say) or os.environ.get("SPARK_ENGINE")):
        raise CommandError(
            "real Sparks are for the Pulumi CLI: https://www.pulumi.com/docs/install/ (SPARK_ENGINE=hermetic takes the "
            "simulator's engine all the same, whose state the CLI can't read)"
        )
    return Project(ROOT, dict(os.environ))


def _say(text: str) -> None:
    """What is on stdout may be for a program."""
    print(f"spark: {text}", file=sys.stderr)
