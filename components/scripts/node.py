"""Take a Spark for a stack, with the scripts that all its other steps run, and give it back. Comes by stdin, and they
with it (components/remote/parcel.py).

stdin   JSON: stack, cache, takeover, record, laid (record of the scripts)
apply   makes the cache directory as the login user, before Docker would make it as root; takes the lease where
        nobody has it, and lays the scripts. Where another stack has it: refuses, or with `takeover` leaves it there
        until image and weights are in place (evict.py)
remove  takes away the lease, the scripts, what this stack has noted here, the directories that were made, Docker's
        settings for Swarm, and weights that need not be kept and that no other stack here uses
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys

from shared import PARCEL
from shared.files import digest_of, read, write_file
from shared.job import run, say
from shared.models import models, remove_model
from shared.records import lease_holder, read_record, take_lease, write_record
from shared.state import LEASE, STATE, discards, record_path, scripts_directory, stack_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Lease


LEFT = ("node", "scripts", "endpoint", "swarm-host")
"""Kinds of records that nothing but `remove` here takes away."""

LOST = (
    ("copy_access.py", {"kind": "copy-access"}, {"key": "copy-key"}),
    ("copy_access.py", {"kind": "image-access"}, {"key": "image-key"}),
    ("swarm_worker.py", {"kind": "swarm-worker"}, {"keep": False}),
    ("swarm_manager.py", {"kind": "swarm-manager"}, {"keep": False}),
)
"""(script, its record, its input) of what is outside the stack's directory, and still there when the scripts were gone
before it could be removed."""


def make(path: str) -> list:
    """The directories that had to be made for `path`, outermost first."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    for folder in missing:
        os.mkdir(folder, 0o755)
    return missing


def lay(stack: str) -> list:
    """Paths of the scripts. Those of former versions stay: what they made may still have to be removed."""
    paths = []
    for name, text in PARCEL.items():
        paths.append(os.path.join(scripts_directory(stack), name))
        os.makedirs(os.path.dirname(paths[-1]), exist_ok=True)
        write_file(paths[-1], text, 0o644)
    return paths


def apply(inputs: Lease) -> None:
    owner = lease_holder() or inputs["stack"]
    if owner != inputs["stack"] and not inputs["takeover"]:
        sys.exit(f"this Spark is held by the stack {owner}: destroy that one first, or take it over")
    made = read_record(inputs["record"]).get("made", []) + make(STATE) + make(inputs["cache"])
    os.makedirs(stack_directory(inputs["stack"]), mode=0o700, exist_ok=True)
    write_record(inputs["laid"], {"digests": {path: digest_of(path) for path in lay(inputs["stack"])}})
    checks: dict[str, Any] = {"directories": [inputs["cache"]]}
    if owner != inputs["stack"]:
        say(f"held by the stack {owner} until image and weights are in place")
        write_record(inputs["record"], checks, made=made)
        return
    checks["lines"] = {LEASE: [take_lease(inputs["stack"])]}
    write_record(inputs["record"], checks, made=made)


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


def undo(stack: str, script: str, inputs: dict[str, Any], *before: str) -> None:
    """`before`: what runs it."""
    path = os.path.join(scripts_directory(stack), script)
    argv = [*before, "timeout", "300", "python3", "-B", path, "remove"]
    if subprocess.run(argv, input=json.dumps(inputs), text=True).returncode:
        sys.exit(f"what {script} has made could not be undone")


def remove(inputs: Lease) -> None:
    known = read_record(inputs["record"])
    if known and known["generation"] != inputs["record"]["generation"]:
        return
    lost = not os.path.isdir(scripts_directory(inputs["stack"]))
    if in_use(inputs["stack"]) and not lost:
        # Taken anew, not handed back: the stack goes on.
        return
    made = known.get("made", []) + make(STATE)
    lay(inputs["stack"])
    for script, about, more in LOST if lost else ():
        undo(inputs["stack"], script, {"record": {"stack": inputs["stack"], "generation": "", **about}, **more})
    if os.path.exists(record_path(inputs["stack"], "swarm-host")):
        host = {"record": {"stack": inputs["stack"], "kind": "swarm-host"}}
        undo(inputs["stack"], "swarm_host.py", host, "sudo", "-n")
    doomed = read(discards(inputs["stack"])).splitlines()
    shutil.rmtree(stack_directory(inputs["stack"]), ignore_errors=True)
    discard(doomed)
    if lease_holder() == inputs["stack"]:
        os.unlink(LEASE)
    for folder in sorted(made, key=len, reverse=True):
        # It stays where somebody's files are in it.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


run(apply, remove)
