"""What a person sees of a run, in the Pulumi CLI's words; with `--json`, what a program sees."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any, TextIO

from simulator.engine.state import STACK_TYPE
from simulator.engine.steps import Events, Step
from simulator.engine.values import Properties, masked

MARKS = {
    "create": "+ ",
    "update": "~ ",
    "replace": "+-",
    "create-replacement": "++",
    "delete-replaced": "--",
    "delete": "- ",
    "refresh": "~ ",
    "refresh-gone": "- ",
    "same": "  ",
}
WORDS = {
    "create": ("create", "created"),
    "update": ("update", "updated"),
    "replace": ("replace", "replaced"),
    "create-replacement": ("create replacement", "created replacement"),
    "delete-replaced": ("delete original", "deleted original"),
    "delete": ("delete", "deleted"),
    "refresh": ("changed outside of Pulumi", ""),
    "refresh-gone": ("gone: removed outside of Pulumi", ""),
}
SUMMARY = {
    "create": "+ {} to create",
    "update": "~ {} to update",
    "replace": "+-{} to replace",
    "delete": "- {} to delete",
}
DONE = {"create": "+ {} created", "update": "~ {} updated", "replace": "+-{} replaced", "delete": "- {} deleted"}
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
        with self._lock:
            self.steps.append(step)
        # A replacement is one line in a preview; in an update its halves are shown as they happen.
        hidden = {"same"} | ({"create-replacement", "delete-replaced"} if self._dry_run else {"replace"})
        if step.op in hidden:
            return
        if self._dry_run or step.op.startswith("refresh"):
            self._line(step, WORDS[step.op][0])
        if self._dry_run and self._diff:
            self._details(step)

    def done(self, step: Step, seconds: float) -> None:
        if step.op in WORDS:
            self._line(step, f"{WORDS[step.op][1]} ({seconds:.1f}s)")

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
            self._print(f"    {word}: {text.rstrip()}")

    def _line(self, step: Step, word: str) -> None:
        keys = f" [{'diff: ' if step.op != 'create-replacement' else ''}{marked(step)}]" if step.changed else ""
        self._print(f" {MARKS[step.op]} {step.type:<38} {name_of(step.urn)} {word}{keys}")

    def _details(self, step: Step) -> None:
        keys = step.changed or (sorted(step.new) if step.op == "create" else [])
        for key in keys:
            old, new = shown(step.old.get(key)), shown(step.new.get(key))
            if step.op == "create":
                self._print(f"       + {key}: {new}")
            else:
                for line in difference(step.old.get(key), step.new.get(key)) or [f"{old} => {new}"]:
                    self._print(f"       ~ {key}: {line}")

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
            self._print(f"    {counts['same']} unchanged")
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

    def as_json(self) -> str:
        steps = [
            {
                "op": s.op,
                "urn": s.urn,
                "type": s.type,
                "diffReasons": list(s.changed),
                "replaceReasons": list(s.replaces),
            }
            for s in self.steps
        ]
        return json.dumps({"steps": steps, "changeSummary": self.counts(), "diagnostics": self.diagnostics}, indent=2)

    def _print(self, text: str, *, error: bool = False) -> None:
        if self._quiet and not error:
            return
        with self._lock:
            print(text, file=sys.stderr if error and self._quiet else self._out, flush=True)


def name_of(urn: str) -> str:
    return urn.rsplit("::", 1)[-1] if urn else ""


def marked(step: Step) -> str:
    return ",".join(f"{'+-' if key in step.replaces else '~'}{key}" for key in step.changed)


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
