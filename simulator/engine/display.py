"""What a person sees of a run, in the Pulumi CLI's words; with `--json`, what a program sees."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, TextIO

from simulator.engine.providers import ADD, DELETE, REPLACE, UPDATE, Path, differences
from simulator.engine.state import FIELDS, STACK_TYPE, Resource
from simulator.engine.steps import Events, Step
from simulator.engine.values import Properties, masked

MARKS = {
    "create": "+ ",
    "update": "~ ",
    "replace": "+-",
    "create-replacement": "++",
    "delete-replaced": "--",
    "delete": "- ",
    "drifted": "~ ",
    "gone": "- ",
    "same": "  ",
}
WORDS = {
    "create": ("create", "created"),
    "update": ("update", "updated"),
    "replace": ("replace", "replaced"),
    "create-replacement": ("create replacement", "created replacement"),
    "delete-replaced": ("delete original", "deleted original"),
    "delete": ("delete", "deleted"),
    "drifted": ("changed outside of Pulumi", ""),
    "gone": ("gone: removed outside of Pulumi", ""),
}
SUMMARY = {
    "create": "+ {} to create",
    "update": "~ {} to update",
    "replace": "+-{} to replace",
    "delete": "- {} to delete",
}
DONE = {"create": "+ {} created", "update": "~ {} updated", "replace": "+-{} replaced", "delete": "- {} deleted"}
HALVES = {"create-replacement", "delete-replaced"}
"""Of a replacement."""

FOUND = {"drifted", "gone"}
"""By a refresh; the CLI has no steps of their own for it."""

PLAIN = re.compile(r"\w+", re.ASCII)
SHOWN = 200
"""Characters of a value in `--diff`."""


class Display(Events):
    def __init__(self, *, dry_run: bool, diff: bool = False, quiet: bool = False, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._dry_run, self._diff, self._quiet = dry_run, diff, quiet
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.steps: list[Step] = []
        self.problems: list[tuple[str, str]] = []
        self.diagnostics: list[dict[str, str]] = []

    def step(self, step: Step) -> None:
        if is_default_provider(step):
            return
        with self._lock:
            self.steps.append(step)
        # A replacement is one line in a preview; in an update its halves are shown as they happen.
        hidden = {"same", "refresh"} | (HALVES if self._dry_run else {"replace"})
        if step.op in hidden:
            return
        if self._dry_run or step.op in FOUND:
            self._line(step, WORDS[step.op][0])
        if self._dry_run and self._diff:
            self._details(step)

    def done(self, step: Step, seconds: float) -> None:
        if step.op in WORDS and not is_default_provider(step):
            self._line(step, f"{WORDS[step.op][1]} ({seconds:.2f}s)")

    def failed(self, urn: str, reason: str) -> None:
        with self._lock:
            self.problems.append((urn, reason))

    def log(self, urn: str, text: str) -> None:
        self._print(f"    {name_of(urn)}: {text}" if urn else f"    {text}")

    def diagnostic(self, severity: int, urn: str, text: str) -> None:
        word = {1: "info", 2: "warning", 3: "error"}.get(severity, "info")
        with self._lock:
            self.diagnostics.append({"severity": word, "urn": urn, "message": text.rstrip()})
        if severity < 3:
            self.log(urn, f"{word}: {text.rstrip()}")

    def _line(self, step: Step, word: str) -> None:
        keys = f" [diff: {marked(step)}]" if marked(step) else ""
        self._print(f" {MARKS[step.op]} {shortened(step.type)} {name_of(step.urn)} {word}{keys}")

    def _details(self, step: Step) -> None:
        if step.op == "create" and step.new:
            for key, value in sorted(step.new.inputs.items()):
                self._print(f"       + {key}: {shown(value)}")
        if not (step.old and step.new):
            return
        old, new = (one.outputs if step.op == "drifted" else one.inputs for one in (step.old, step.new))
        for key in sorted({str(path[0]) for path in changes(step)}):
            for line in difference(old.get(key), new.get(key)) or [f"{shown(old.get(key))} => {shown(new.get(key))}"]:
                self._print(f"       ~ {key}: {line}")

    def vanishing(self) -> None:
        """In a preview: what goes before something it depends on is replaced, and does not come again. The CLI, too,
        shows it and counts it nowhere."""
        if self._dry_run:
            again = {step.urn for step in self.steps if step.op == "replace"}
            for step in self.steps:
                if step.op == "delete-replaced" and step.urn not in again:
                    self._line(step, WORDS[step.op][0])

    def outputs(self, old: Properties, new: Properties) -> None:
        """Stack outputs: all of them, those that changed marked."""
        before, after = masked(old), masked(new)
        if not after and not before:
            return
        self._print("Outputs:")
        for key in sorted({*before, *after}):
            mark = (
                " "
                if before.get(key) == after.get(key)
                else "+"
                if key not in before
                else "-"
                if key not in after
                else "~"
            )
            value = after.get(key, before.get(key))
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            first, *more = text.splitlines() or [""]
            self._print(f"  {mark} {key}: {first[:SHOWN]}{' …' if more or len(first) > SHOWN else ''}")

    def counts(self) -> dict[str, int]:
        counted = Counter(step.op for step in self.steps)
        # A replacement shows as one, whichever way it was done.
        plain = {op: counted[op] for op in ("create", "update", "replace", "delete", "same") if counted[op]}
        return plain

    def summary(self) -> None:
        counts = self.counts()
        words = SUMMARY if self._dry_run else DONE
        changes = [(op, count) for op, count in counts.items() if op != "same"]
        self._print("Resources:")
        for op, count in changes:
            self._print(f"    {words[op].format(f'{count}')}")
        if counts.get("same"):
            total = f"{sum(count for _, count in changes)} changes. " if len(changes) > 1 else ""
            self._print(f"    {total}{counts['same']} unchanged")
        if not self._dry_run:
            self._print(f"\nDuration: {time.monotonic() - self._began:.0f}s")

    def diagnostics_summary(self) -> None:
        errors = [entry for entry in self.diagnostics if entry["severity"] == "error"]
        if not errors and not self.problems:
            return
        self._print("Diagnostics:", error=True)
        for urn, reason in self.problems:
            self._print(f"  {name_of(urn) or 'program'}:", error=True)
            self._print("\n".join(f"    {line}" for line in f"error: {reason}".splitlines()), error=True)
        for entry in errors:
            self._print("\n".join(f"    {line}" for line in f"error: {entry['message']}".splitlines()), error=True)

    def as_json(self, *, sames: bool) -> str:
        """Source of what is in it: pulumi, pkg/backend/display/json.go."""
        steps = [digest(step) for step in self.steps if (sames and step.op == "same") or is_listed(step)]
        return json.dumps({"steps": steps, "changeSummary": self.counts(), "diagnostics": self.diagnostics}, indent=2)

    def _print(self, text: str, *, error: bool = False) -> None:
        if self._quiet and not error:
            return
        with self._lock:
            print(text, file=sys.stderr if error and self._quiet else self._out, flush=True)


def name_of(urn: str) -> str:
    return urn.rsplit("::", 1)[-1] if urn else ""


def shortened(type_: str) -> str:
    """`docker:index:Container`"""
    return re.sub(r"/\w+:", ":", type_)


def is_default_provider(step: Step) -> bool:
    """Of which Pulumi says nothing."""
    return step.type.startswith("pulumi:providers:") and name_of(step.urn).startswith("default")


def is_listed(step: Step) -> bool:
    """By `preview --json`: what happens, what is looked at (not what was found), the stack, and what is no longer
    protected, or is now."""
    if step.op == "same":
        return step.type == STACK_TYPE or bool(step.old and step.new and step.old.protect != step.new.protect)
    return step.op not in HALVES | FOUND


def digest(step: Step) -> dict[str, Any]:
    """One of the steps of `preview --json`."""
    said = {
        "op": step.op,
        "urn": step.urn,
        "provider": next(one.provider for one in (step.new, step.old) if one),
        "oldState": digested(step.old),
        "newState": digested(step.new),
        "diffReasons": sorted(step.diff.changed),
        "replaceReasons": sorted(step.diff.reasons),
    }
    detailed = step.diff.detailed
    return {
        **{key: value for key, value in said.items() if value},
        "detailedDiff": None
        if detailed is None
        else {written(path): {"kind": kind, "inputDiff": False} for path, kind in detailed.items()},
    }


def written(path: Path) -> str:
    """As Pulumi writes paths of properties."""
    return "".join(
        f"[{one}]" if isinstance(one, int) else f".{one}" if PLAIN.fullmatch(one) else f'["{one}"]' for one in path
    ).removeprefix(".")


def digested(resource: Resource | None) -> dict[str, Any] | None:
    """A state of it, secrets as words."""
    if resource is None:
        return None
    known = {theirs: value for ours, theirs in FIELDS.items() if (value := getattr(resource, ours))}
    return {**known, "inputs": masked(resource.inputs), "outputs": masked(resource.outputs)}


def changes(step: Step) -> Mapping[Path, str]:
    """What differs; of a component, too, whose steps have no reasons."""
    if step.diff.detailed is not None or not (step.old and step.new) or step.op == "same":
        return step.diff.detailed or {}
    return differences(step.old.inputs, step.new.inputs)


def marked(step: Step) -> str:
    """`+KEY,KEY-KEY~KEY`: what comes, goes and changes."""
    found: dict[str, list[str]] = {"+": [], "-": [], "~": []}
    whole = {path[0]: kind for path, kind in changes(step).items() if len(path) == 1}
    for key in sorted({str(path[0]) for path in changes(step)}):
        found[{ADD: "+", DELETE: "-"}.get(whole.get(key, UPDATE).removesuffix(REPLACE), "~")].append(key)
    return "".join(mark + ",".join(keys) for mark, keys in found.items() if keys)


def shown(value: Any) -> str:
    text = json.dumps(masked(value), sort_keys=True)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def difference(old: Any, new: Any) -> list[str]:
    """Lists element by element, the order left aside; of texts that are JSON, the keys that differ."""
    before, after = decoded(masked(old)), decoded(masked(new))
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        below = {key: difference(before.get(key), after.get(key)) for key in keys}
        return [
            f"{key}: {line}"
            for key in keys
            for line in below[key] or [f"{shown(before.get(key))} => {shown(after.get(key))}"]
        ]
    if not (isinstance(before, list) and isinstance(after, list)):
        return []
    gone = [f"- {shown(item)}" for item in before if item not in after]
    return gone + [f"+ {shown(item)}" for item in after if item not in before]


def decoded(value: Any) -> Any:
    """The object that a text is in JSON; all else as it is."""
    if not (isinstance(value, str) and value.startswith("{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def is_change(step: Step) -> bool:
    return step.op in ("create", "update", "replace", "delete", "create-replacement") and step.type != STACK_TYPE
