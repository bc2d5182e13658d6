"""What a registration asks for, the steps that it means, and what the display hears of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.engine.providers import Diff
from simulator.engine.state import STACK_TYPE, Resource
from simulator.engine.values import Properties


class Refused(Exception):
    """The run goes no further; the reason has been shown."""


@dataclass
class Goal:
    """What a registration asks for."""

    type: str
    name: str
    custom: bool
    parent: str
    inputs: Properties
    provider: str = ""
    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    replace_on_changes: list[str] = field(default_factory=list)
    ignore_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    protect: bool = False
    retain_on_delete: bool = False
    deleted_with: str = ""
    before_create: list[str] = field(default_factory=list)
    """Names of hooks."""


NOT_COMPARED = Diff(None)


@dataclass(frozen=True)
class Step:
    """One line of a preview."""

    op: str
    """create, update, replace, create-replacement, delete-replaced, delete, same, refresh; drifted and gone of what
    a refresh finds"""

    urn: str
    type: str
    diff: Diff = NOT_COMPARED
    old: Resource | None = field(default=None, compare=False)
    new: Resource | None = field(default=None, compare=False)


class Events:
    """What the display hears of."""

    def step(self, step: Step) -> None: ...
    def done(self, step: Step, seconds: float) -> None: ...
    def failed(self, urn: str, reason: str) -> None: ...
    def log(self, urn: str, text: str) -> None: ...


def urn_of(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """`urn:pulumi:STACK::PROJECT::[PARENT_TYPES$]TYPE::NAME`; the stack's own type is never part of it."""
    parents = parent.split("::")[2] if parent else ""
    prefix = f"{parents}$" if parents and parents != STACK_TYPE else ""
    return f"urn:pulumi:{stack}::{project}::{prefix}{type_}::{name}"
