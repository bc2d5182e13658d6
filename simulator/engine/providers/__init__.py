"""What the engine asks of a resource type; the types themselves are in `command.py` and `docker_types.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from simulator.engine.values import Properties

Log = Callable[[str], None]
Path = tuple[str | int, ...]
"""Of a property: names of keys, numbers of elements."""

ADD, DELETE, UPDATE = "add", "delete", "update"
REPLACE = "-replace"
"""Behind one of them: this change needs a new resource."""


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
    """How new inputs differ from what exists."""

    detailed: Mapping[Path, str] | None = field(default_factory=dict)
    """Path → add, delete or update, of which `-replace` may say more; None: nobody looked."""

    reasons: frozenset[str] = frozenset()
    """Names of what needs a new resource."""

    delete_before_replace: bool = False

    @property
    def changed(self) -> frozenset[str]:
        """Top-level properties."""
        return frozenset(str(path[0]) for path in self.detailed or ())

    @property
    def replaces(self) -> bool:
        return bool(self.reasons) or any(kind.endswith(REPLACE) for kind in (self.detailed or {}).values())

    def forced(self, paths: Collection[Path]) -> Diff:
        """With a new resource for what changes at or below one of `paths`, as Pulumi's applyReplaceOnChanges."""
        detailed = {
            path: forced(kind) if any(contains(above, path) for above in paths) else kind
            for path, kind in (self.detailed or {}).items()
        }
        named = {name for name in self.changed if any(contains(above, (name,)) for above in paths)}
        return replace(self, detailed=None if self.detailed is None else detailed, reasons=self.reasons | named)


def differ(changes: Mapping[Path, str], replaces: Collection[str], *, delete_before_replace: bool = False) -> Diff:
    """`replaces`: top-level properties that need a new resource."""
    detailed = {path: forced(kind) if path[0] in replaces else kind for path, kind in changes.items()}
    return Diff(detailed, frozenset(replaces) & {str(path[0]) for path in changes}, delete_before_replace)


def forced(kind: str) -> str:
    return kind if kind.endswith(REPLACE) else kind + REPLACE


def contains(above: Path, path: Path) -> bool:
    """`*` in `above` is any key and any element."""
    return len(above) <= len(path) and all(one in ("*", other) for one, other in zip(above, path, strict=False))


@dataclass(frozen=True)
class Old:
    """A resource as the state has it; without secret wrappers, but for `diff` of a type that sees them."""

    id: str
    inputs: Properties
    outputs: Properties
    init_errors: list[str] = field(default_factory=list)


class ResourceType(Protocol):
    @property
    def computed(self) -> tuple[str, ...]:
        """Outputs that only the operation tells."""

    @property
    def sees_secrets(self) -> bool:
        """A value that becomes secret, or is none any more, is a change to it: `diff` is given the wrappers."""

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


def differences(old: Any, new: Any, at: Path = ()) -> dict[Path, str]:
    """What differs, as deep as both have it: path → add, delete or update."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys: Collection[str | int] = list({**old, **new})
    elif isinstance(old, list) and isinstance(new, list):
        keys = range(max(len(old), len(new)))
        old, new = dict(enumerate(old)), dict(enumerate(new))
    else:
        return {at: UPDATE} if old != new else {}
    found: dict[Path, str] = {}
    for key in keys:
        if old.get(key) is None or new.get(key) is None:
            if old.get(key) is not new.get(key):
                found[(*at, key)] = ADD if old.get(key) is None else DELETE
        else:
            found |= differences(old[key], new[key], (*at, key))
    return found
