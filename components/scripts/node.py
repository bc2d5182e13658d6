"""Take a Spark for a stack, and give it back.

stdin   JSON: stack, cache, record, and to remove also host (the parcel that undoes swarm_host.py, as root)
apply   refuses when another stack holds the Spark; makes the cache directory as the login user, before
        Docker would make it as root; writes the lease
remove  takes away the lease and the directories that `apply` made, and Docker's settings for Swarm
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys

from common import LEASE, STATE, record_path, run, stack_directory, write_file, write_record


def lease() -> dict:
    try:
        with open(LEASE) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return {}


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
    owner = lease().get("stack", given["stack"])
    if owner != given["stack"]:
        sys.exit(f"this Spark is held by the stack {owner}: destroy that one first")
    made = lease().get("made", []) + make(STATE) + make(given["cache"])
    write_file(LEASE, json.dumps({"stack": given["stack"], "made": made}))
    checks = {"directories": [given["cache"]], "lines": {LEASE: [json.dumps({"stack": given["stack"], "made": made})]}}
    write_record(given["record"], checks)


def remove(given: dict) -> None:
    held = lease()
    if held.get("stack") != given["stack"]:
        return
    try:
        with open(record_path(given["stack"], "node")) as stream:
            if json.load(stream)["generation"] != given["record"]["generation"]:
                return
    except FileNotFoundError:
        pass
    if os.path.exists(record_path(given["stack"], "swarm-host")):
        done = subprocess.run(["sh", "-c", given["host"]["command"]], input=given["host"]["stdin"], text=True)
        if done.returncode:
            sys.exit("Docker's settings for Swarm could not be undone")
    shutil.rmtree(stack_directory(given["stack"]), ignore_errors=True)
    os.unlink(LEASE)
    for folder in sorted(held["made"], key=len, reverse=True):
        # It stays where somebody's files are in it.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


run(apply, remove)
