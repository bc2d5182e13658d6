"""Property values: Python on our side, google.protobuf.Struct on the wire, JSON in the state file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN_WIRE = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


class Unknown:
    """A value that only an update will tell."""

    def __repr__(self) -> str:
        return "output<unknown>"

    def __eq__(self, other: object) -> bool:
        return False  # not even equal to itself: an unknown may always turn out different

    __hash__ = object.__hash__


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Secret:
    value: Any

    def __repr__(self) -> str:
        return "[secret]"


Properties = dict[str, Any]


def from_wire(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE in fields:
            if fields[SIGNATURE].string_value != SECRET:
                raise NotImplementedError(f"a value of kind {fields[SIGNATURE].string_value} (asset or reference)")
            return Secret(from_wire(fields["value"]))
        return struct_from_wire(value.struct_value)
    if kind == "list_value":
        return [from_wire(item) for item in value.list_value.values]
    if kind == "string_value":
        return UNKNOWN if value.string_value == UNKNOWN_WIRE else value.string_value
    if kind == "number_value":
        # The wire knows doubles only; 22.0 and 22 are the same port.
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    return value.bool_value if kind == "bool_value" else None


def struct_from_wire(struct: struct_pb2.Struct) -> Properties:
    return {key: from_wire(value) for key, value in struct.fields.items()}


def to_wire(value: Any) -> struct_pb2.Value:
    if isinstance(value, Secret):
        fields = {SIGNATURE: struct_pb2.Value(string_value=SECRET), "value": to_wire(value.value)}
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
    if isinstance(value, Unknown):
        return struct_pb2.Value(string_value=UNKNOWN_WIRE)
    if isinstance(value, dict):
        return struct_pb2.Value(struct_value=struct_to_wire(value))
    if isinstance(value, (list, tuple)):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[to_wire(item) for item in value]))
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return struct_pb2.Value(number_value=value)
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    return struct_pb2.Value(string_value=value)


def struct_to_wire(properties: Properties) -> struct_pb2.Struct:
    return struct_pb2.Struct(fields={key: to_wire(value) for key, value in properties.items()})


def walk(value: Any, change: Callable[[Any], Any]) -> Any:
    """`change` applied to every leaf, secrets and unknowns being leaves."""
    if isinstance(value, dict):
        return {key: walk(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [walk(item, change) for item in value]
    return change(value)


def plain(value: Any) -> Any:
    """Without secret wrappers, at any depth."""
    return walk(value, lambda leaf: plain(leaf.value) if isinstance(leaf, Secret) else leaf)


def masked(value: Any) -> Any:
    """Fit to be shown: secrets and unknowns as words."""
    return walk(value, lambda leaf: repr(leaf) if isinstance(leaf, (Secret, Unknown)) else leaf)


def has_unknown(value: Any) -> bool:
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_unknown(item) for item in value)
    return isinstance(value, Unknown)


def is_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(is_secret(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_secret(item) for item in value)
    return isinstance(value, Secret)
