"""Take a Spark for a stack, with the scripts that all its other steps run, and give it back. Comes by stdin, and they
with it (components/remote/parcel.py).

stdin   JSON: stack, node (its name in the stack), cache, takeover, record, laid (record of the scripts)
apply   makes the cache directory as the login user, before Docker would make it as root; takes the lease where
        nobody has it, and lays the scripts. Where another stack has it: refuses, or with `takeover` leaves it there
        until image and weights are in place (evict.py). One that fails leaves the Spark as it was
remove  leaves nothing of the stack here, whatever Pulumi's state knew: its containers, services and volumes by their
        label, its keys, the lease, the scripts, what it has noted here, the directories that were made, Docker's
        settings for Swarm, and weights that need not be kept and that no other stack here uses
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

from shared import PARCEL
from shared.compiled import remove_of
from shared.docker import Docker, attended, containers, docker, name_of, remove_container
from shared.files import digest_of, locked, read, write_file
from shared.job import run, say
from shared.models import models, remove_model
from shared.records import claim, held_by, lease_holder, lease_line, read_record, write_record
from shared.state import LEASE, STATE, discards, record_path, scripts_directory, stack_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Lease


KEYS = (
    ("copy_access.py", {"kind": "copy-access"}, {"key": "copy-key"}),
    ("copy_access.py", {"kind": "image-access"}, {"key": "image-key"}),
)
SWARM = (
    ("swarm_worker.py", {"kind": "swarm-worker"}, {"keep": False}),
    ("swarm_manager.py", {"kind": "swarm-manager"}, {"keep": False}),
)
"""(script, its record, its input) of what is outside the stack's directory."""


def make(path: str) -> list:
    """The directories that had to be made for `path`, outermost first."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    made = []
    for folder in missing:
        # Another stack may come at the same moment.
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o755)
            made.append(folder)
    return made


def leave(folders: Iterable) -> None:
    """What was made; it stays where somebody's files are in it."""
    for folder in sorted(folders, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextlib.contextmanager
def undone_where_it_fails(stack: str) -> Iterator[list]:
    """Yields a list for the directories that are made. What failed is not in Pulumi's state: no destroy would undo it,
    and nobody else would get the Spark."""
    made: list[str] = []
    held, laid = lease_holder() == stack, os.path.isdir(scripts_directory(stack))
    try:
        yield made
    except BaseException:
        if not laid:
            shutil.rmtree(scripts_directory(stack), ignore_errors=True)
        if not held:
            give_back(stack)
        leave([*made, stack_directory(stack)])
        raise


def lay(stack: str) -> list:
    """Paths of the scripts. Those of former versions stay: what they made may still have to be removed."""
    paths = []
    for name, text in PARCEL.items():
        paths.append(os.path.join(scripts_directory(stack), name))
        os.makedirs(os.path.dirname(paths[-1]), exist_ok=True)
        write_file(paths[-1], text, 0o644)
    return paths


def apply(inputs: Lease) -> None:
    with undone_where_it_fails(inputs["stack"]) as made:
        take(inputs, made)


def take(inputs: Lease, made: list) -> None:
    former = read_record(inputs["record"]).get("made", [])
    made += make(STATE)
    owner = claim(inputs["stack"])
    if owner != inputs["stack"] and not inputs["takeover"]:
        sys.exit(held_by(owner))
    made += make(inputs["cache"])
    os.makedirs(stack_directory(inputs["stack"]), mode=0o700, exist_ok=True)
    write_record(inputs["laid"], {"digests": {path: digest_of(path) for path in lay(inputs["stack"])}})
    checks: dict[str, Any] = {"directories": [inputs["cache"]]}
    if owner == inputs["stack"]:
        checks["lines"] = {LEASE: [lease_line(owner)]}
    else:
        say(f"held by the stack {owner} until image and weights are in place")
    write_record(inputs["record"], checks, made=former + made, node=inputs["node"])


def discard(folders: list) -> None:
    used = [record["model"]["path"] for record in models().values()]
    for folder in folders:
        if any(path == folder or path.startswith(f"{folder}/") for path in used):
            continue
        remove_model(folder)
        remove_of(folder)


def undo(stack: str, script: str, inputs: dict[str, Any], *before: str) -> None:
    """`before`: what runs it."""
    path = os.path.join(scripts_directory(stack), script)
    argv = [*before, "timeout", "300", "python3", "-B", path, "remove"]
    if subprocess.run(argv, input=json.dumps(inputs), text=True).returncode:
        sys.exit(f"what {script} has made could not be undone")


def listed(*words: str) -> list:
    """What a docker command lists, one a line; nothing where Docker has no such things, as without Swarm."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def sweep(stack: str) -> None:
    """Everything in Docker that carries the stack's label, whoever still knows it."""
    attended()
    try:
        Docker().get("/version")
    except FileNotFoundError:
        # There is no Docker here any more.
        return
    except OSError as error:
        sys.exit(f"Docker does not answer, and what this stack ran here stays: {error}")
    label = f"label=dgx-spark.stack={stack}"
    for kind in ("service", "config", "secret"):
        for id_ in listed(kind, "ls", "--quiet", "--filter", label):
            docker(kind, "rm", id_)
    ours = containers(stack)
    for container in ours:
        say(f"removing {name_of(container)}")
        remove_container(container["Id"], container["Labels"])
    for name in {*listed("volume", "ls", "--quiet", "--filter", label), *volumes(stack, ours)}:
        docker("volume", "rm", "--force", name)


def volumes(stack: str, ours: Iterable) -> set:
    """Names of those that the stack's containers have mounted: of former versions, which gave them no label."""
    _, project, name = stack.split("/")
    mounts = [mount for container in ours for mount in container.get("Mounts") or [] if mount["Type"] == "volume"]
    return {mount["Name"] for mount in mounts if mount["Name"].startswith(f"{project}-{name}-")}


def give_back(stack: str) -> None:
    """The lease, if it is this stack's."""
    if os.path.isdir(STATE):
        with locked(STATE):
            if lease_holder() == stack:
                os.unlink(LEASE)


def remove(inputs: Lease) -> None:
    stack, known = inputs["stack"], read_record(inputs["record"])
    if known.get("node", inputs["node"]) != inputs["node"]:
        # This Spark has another name in the stack now, and goes on under it.
        return
    lost = not os.path.isdir(scripts_directory(stack))
    made = known.get("made", []) + make(STATE)
    lay(stack)
    sweep(stack)
    for script, about, more in (*KEYS, *SWARM):
        if lost or script == "copy_access.py" or os.path.exists(record_path(stack, about["kind"])):
            undo(stack, script, {"record": {"stack": stack, "generation": "", **about}, **more})
    if os.path.exists(record_path(stack, "swarm-host")):
        host = {"record": {"stack": stack, "kind": "swarm-host"}}
        undo(stack, "swarm_host.py", host, "sudo", "-n")
    doomed = read(discards(stack)).splitlines()
    shutil.rmtree(stack_directory(stack), ignore_errors=True)
    discard(doomed)
    give_back(stack)
    # That one is ours by its name, also where a run was cut short before it had noted that it made it.
    leave({*made, STATE})


run(apply, remove)
