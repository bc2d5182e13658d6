"""Who holds this Spark, and what is in place on it."""

from __future__ import annotations

import json
import os

from .files import digest_of, locked, read, stamp, write_file
from .state import LEASE, STATE, record_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Record


def lease_holder() -> str:
    """The stack that holds this Spark; '' for none."""
    return str(json.loads(read(LEASE) or "{}").get("stack", ""))


def lease_line(stack: str) -> str:
    """What the file of a lease holds."""
    return json.dumps({"stack": stack})


def claim(stack: str, *, from_: str = "") -> str:
    """Take the lease for `stack` where nobody has it, or where `from_` does; the stack that has it afterwards.

    Of two that come at once, one gets it.
    """
    with locked(STATE):
        owner = lease_holder()
        if owner in ("", stack, from_):
            write_file(LEASE, lease_line(stack))
            return stack
    return owner


def held_by(owner: str) -> str:
    """For whom this Spark is not free."""
    return f"this Spark is held by the stack {owner}: destroy that one first, or take it over"


def read_record(wanted: Record) -> dict[str, Any]:
    """The record of this kind as it stands, whatever its generation; {} for none."""
    found: dict[str, Any] = json.loads(read(record_path(wanted["stack"], wanted["kind"])) or "{}")
    return found


def has_record(wanted: Record) -> bool:
    """Does a record of exactly this thing, in this generation, stand?"""
    record = read_record(wanted)
    return (
        bool(record)
        and all(record[key] == wanted[key] for key in ("spec", "generation"))
        and holds(record["checks"], set())
    )


def write_record(wanted: Record, checks: dict, **more: object) -> None:
    """Say that `wanted` (stack, kind, spec, generation) is in place; written last, and whole or not at all.

    checks   what the probe must find for the record to count as intact:
             files {path: stamp}, digests {path: sha256}, lines {path: [line]}, images [id], directories [path],
             swarm (id of this node in its Swarm)
    """
    path = record_path(wanted["stack"], wanted["kind"])
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    record = {"spec": wanted["spec"], "generation": wanted["generation"], "checks": checks, **more}
    write_file(path, json.dumps(record, indent=1))


def remove_record(wanted: Record) -> None:
    """Forget a record, unless a newer one has taken its place."""
    if read_record(wanted).get("generation") == wanted["generation"]:
        os.unlink(record_path(wanted["stack"], wanted["kind"]))


def holds(checks: dict, images: set, swarm: str = "") -> bool:
    """Is everything that a record speaks of still there? `swarm`: this node's id in its Swarm."""

    def lines(path: str) -> set:
        try:
            with open(path) as stream:
                return {line.rstrip("\n") for line in stream}
        except FileNotFoundError:
            return set()

    return (
        all(stamp(path) == wanted for path, wanted in checks.get("files", {}).items())
        and all(set(wanted) <= lines(path) for path, wanted in checks.get("lines", {}).items())
        and all(image in images for image in checks.get("images", []))
        and all(os.path.isdir(path) for path in checks.get("directories", []))
        and all(digest_of(path) == wanted for path, wanted in checks.get("digests", {}).items())
        and checks.get("swarm", swarm) == swarm
    )
