"""What the engine asks of a resource type; the types themselves are in `command.py` and `docker_types.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from simulator.engine.values import Properties

Log = Callable[[str], None]


class ProviderError(Exception):
    """An operation failed; nothing was made."""


class InitFailed(ProviderError):
    """The resource exists but did not come up: it is kept in the state, to be replaced."""

    def __init__(self, id_: str, outputs: Properties, reason: str) -> None:
        super().__init__(reason)
        self.id, self.outputs = id_, outputs


class Canceled(ProviderError):
    """The user interrupted the run."""


@dataclass(frozen=True)
class Diff:
    """How new inputs differ from what exists. All values are without secret wrappers."""

    updates: frozenset[str] = frozenset()
    """Top-level properties that change in place."""

    replaces: frozenset[str] = frozenset()
    """Top-level properties that need a new resource."""

    delete_before_replace: bool = False

    @property
    def changed(self) -> frozenset[str]:
        return self.updates | self.replaces


@dataclass(frozen=True)
class Old:
    """A resource as the state has it, without secret wrappers."""

    id: str
    inputs: Properties
    outputs: Properties
    init_errors: list[str] = field(default_factory=list)


class ResourceType(Protocol):
    @property
    def computed(self) -> tuple[str, ...]:
        """Outputs that only the operation tells."""

    def check(self, inputs: Properties) -> Properties:
        """Inputs with defaults."""

    def diff(self, old: Old, new: Properties) -> Diff: ...

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        """(id, outputs). `config` is the provider resource's."""

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties: ...

    def read(self, old: Old, config: Properties) -> Properties | None:
        """Outputs as they are now; None: it is gone."""

    def delete(self, old: Old, config: Properties, log: Log) -> None: ...


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> set[str]:
    """Top-level keys whose values differ; an unknown value always does."""
    return {key for key in {*old, *new} if old.get(key) != new.get(key)}
