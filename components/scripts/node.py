"""Take a Spark for a stack, and give it back.

stdin   JSON: stack, cache, takeover, record, and to remove also host (the parcel that undoes swarm_host.py, as root)
apply   makes the cache directory as the login user, before Docker would make it as root; takes the lease where
        nobody has it. Where another stack has it: refuses, or with `takeover` leaves it there until image and
        weights are in place (room.py)
remove  takes away the lease, what this stack has noted here, the directories that were made, Docker's settings for
        Swarm, and weights that need not be kept and that no other stack here uses
"""

import contextlib
import glob
import os
import shutil
import subprocess
import sys

from common import (
    LEASE, STATE, discards, lease_holder, models, read, read_record, record_path, remove_model, run, say,
    stack_directory, take_lease, write_record,
)  # fmt: skip


LEFT = ("node", "endpoint", "swarm-host")
"""Kinds of records that nothing but `remove` here takes away."""


def make(path: str) -> list:
    """The directories that had to be made for `path`, outermost first."""
    missing = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    for folder in missing:
        os.mkdir(folder, 0o755)
    return missing


def apply(given: dict) -> None:
    made = read_record(given["record"]).get("made", []) + make(STATE) + make(given["cache"])
    checks = {"directories": [given["cache"]]}
    owner = lease_holder() or given["stack"]
    if owner != given["stack"] and not given["takeover"]:
        sys.exit(f"this Spark is held by the stack {owner}: destroy that one first, or take it over")
    if owner != given["stack"]:
        say(f"held by the stack {owner} until image and weights are in place")
        write_record(given["record"], checks, made=made)
        return
    checks["lines"] = {LEASE: [take_lease(given["stack"])]}
    write_record(given["record"], checks, made=made)


def in_use(stack: str) -> bool:
    """Other things of the stack are noted here; all of them go before the Spark is handed back."""
    records = {os.path.basename(path) for path in glob.glob(os.path.join(stack_directory(stack), "*.json"))}
    return bool(records - {f"{kind}.json" for kind in LEFT})


def discard(folders: list) -> None:
    used = [record["model"]["path"] for record in models().values()]
    for folder in folders:
        if any(path == folder or path.startswith(f"{folder}/") for path in used):
            continue
        remove_model(folder)


def remove(given: dict) -> None:
    known = read_record(given["record"])
    if known and known["generation"] != given["record"]["generation"]:
        return
    if in_use(given["stack"]):
        # Taken anew, not handed back: the stack goes on.
        return
    if os.path.exists(record_path(given["stack"], "swarm-host")):
        done = subprocess.run(["sh", "-c", given["host"]["command"]], input=given["host"]["stdin"], text=True)
        if done.returncode:
            sys.exit("Docker's settings for Swarm could not be undone")
    doomed = read(discards(given["stack"])).splitlines()
    shutil.rmtree(stack_directory(given["stack"]), ignore_errors=True)
    discard(doomed)
    if lease_holder() == given["stack"]:
        os.unlink(LEASE)
    for folder in sorted(known.get("made", []), key=len, reverse=True):
        # It stays where somebody's files are in it.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


run(apply, remove)
