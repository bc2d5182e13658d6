"""A stack's Sparks, for commands that look at them or work on them beside Pulumi: settings, and scripts over SSH."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components.facts import spark
from components.facts.failure import Failure
from components.facts.spark import NodeFacts
from components.plan import orders
from components.problems import Problem, Refused
from components.remote import ask, parcel, reach, ssh
from components.settings import PROJECT, Node, Settings, load
from ops import pulumi
from ops.project import Project, configured, project
from ops.pulumi import CommandError
from ops.sudo import Sudo


@dataclass(frozen=True)
class Stack:
    where: Project
    stack: str
    """As Pulumi takes it: STACK or ORG/STACK."""
    settings: Settings

    @cached_property
    def identity(self) -> str:
        """ORG/PROJECT/STACK, as on the Sparks' labels and leases."""
        return str(self.outputs.get("stack") or self.where.full(self.stack))

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, as they are when first asked for; empty before the first `up`."""
        words = ["stack", "output", "--json", "--stack", self.stack]
        found: dict[str, Any] = json.loads(pulumi.output(words, self.where.env, self.where.folder) or "{}")
        return found

    def api_key(self) -> str:
        """'' where the API is open."""
        if self.where.config(self.stack, "apiKey") is None:
            return ""
        return pulumi.output(["config", "get", "apiKey", "--stack", self.stack], self.where.env, self.where.folder)

    def nodes(self, names: Sequence[str] = ()) -> list[Node]:
        """Those of these names; all where none is given. Raises CommandError for a name that no Spark has."""
        known = {node.name: node for node in self.settings.nodes}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise CommandError(f"{self.stack} has no Spark {', '.join(unknown)}; there is {', '.join(known)}")
        return [known[name] for name in names] or list(known.values())

    def facts(self) -> tuple[dict[str, NodeFacts], list[Problem]]:
        """What the program's own probe says of each Spark, and a problem for each that can't be asked."""
        return look(self.settings, self.identity)

    def ask(
        self, script: str, inputs: Mapping[str, Mapping[str, object]], *, limit: int = 60, root: Sudo | None = None
    ) -> dict[str, Any]:
        """Node → what a script prints there as JSON, all at once. Raises CommandError naming those that fail.

        inputs  node → one of scripts/contracts.py
        limit   seconds
        root    runs it as root
        """

        def one(name: str, password: str | None = None) -> dict[str, Any]:
            (node,) = self.nodes([name])
            command = parcel.command(script, "apply", limit=limit, root=root is not None, asks=password is not None)
            first = "" if password is None else f"{password}\n"
            opened = ask.opened([*ssh.argv(node, self.settings.ssh), command])
            return ask.answer(opened, first + parcel.asking(script, inputs[name]), limit=limit + 10)

        if root:
            users = {name: self.settings.login(name).user for name in inputs}
            answers = root.run(users, one, lambda answer: answer.get("error", {}).get("kind") is Failure.SUDO)
        else:
            with ThreadPoolExecutor(max(1, len(inputs))) as pool:
                answers = dict(zip(inputs, pool.map(one, inputs), strict=True))
        failed = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
        if failed:
            raise CommandError("\n".join(self._why(name, **error) for name, error in failed.items()))
        return {name: answer["facts"] for name, answer in answers.items()}

    def _why(self, name: str, kind: Failure, detail: str) -> str:
        if kind in (Failure.OTHER, Failure.SUDO):
            return f"{name}: {detail}"
        return str(spark.explain(self.nodes([name])[0], self.settings, kind, detail))

    def caches(self) -> dict[str, str]:
        """Node → its cache directory, as configured."""
        return {node.name: node.cache or self.settings.weights.cache for node in self.settings.nodes}


def selected(stack: str | None) -> Stack:
    """The selected stack's, or that of this name. Raises CommandError for what is wrong in its settings."""
    where = project(stack)
    return of(where, where.chosen(stack))


def of(where: Project, stack: str) -> Stack:
    try:
        return Stack(where, stack, reach.settled(load(raw(where, stack))))
    except Refused as refused:
        raise CommandError(str(refused)) from None


def look(settings: Settings, stack: str) -> tuple[dict[str, NodeFacts], list[Problem]]:
    """Facts of every Spark, and a problem for each that can't be asked. `stack`: ORG/PROJECT/STACK."""
    answers = ask.ask(ask.dial(settings), orders.probe(settings, stack))
    return spark.parse(answers, settings)


def raw(where: Project, stack: str) -> dict[str, str]:
    """The stack's settings as the program gets them: its file over the defaults of Pulumi.yaml.

    Secrets are empty; they are asked for where they are needed (`Stack.api_key`). Raises CommandError.
    """
    defaults = configured(where.folder / "Pulumi.yaml")
    values = {f"{PROJECT}:{key}": about["default"] for key, about in defaults.items() if "default" in about}
    values |= configured(where.file(stack))
    own = {key: _without_secrets(value) for key, value in values.items() if key.startswith(f"{PROJECT}:")}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in own.items()}


def _without_secrets(value: Any) -> Any:
    """An encrypted value is written as {secure: text}, at any depth."""
    if isinstance(value, dict):
        return "" if set(value) == {"secure"} else {key: _without_secrets(item) for key, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def terminal(argv: Sequence[str]) -> int:
    """Run a program on this terminal; its exit code."""
    return subprocess.run(list(argv)).returncode
