"""Make way for what Pulumi is about to make: this stack's own of that name is unknown to the state by then, and goes.

stdin   JSON: stack, kind (container, service, config or secret), name
exit    1 where it is not this stack's: nothing of others is touched; and where another stack has taken the Spark
        meanwhile
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.parse

from shared.docker import Docker, remove_container
from shared.job import job, say
from shared.records import held_by, lease_holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Clearing

LIMIT = 60
"""Seconds for Swarm to let go of a config or secret whose services are gone."""


def found(kind: str, name: str) -> Any:
    """As Docker's API describes it; None where there is none, or no Swarm."""
    if kind == "container":
        return Docker().get(f"/containers/{urllib.parse.quote(name)}/json")
    done = subprocess.run(["docker", kind, "inspect", name], capture_output=True)
    return Docker().get(f"/{kind}s/{urllib.parse.quote(name)}") if done.returncode == 0 else None


def stack_of(kind: str, about: dict[str, Any]) -> str:
    labels = about["Config"]["Labels"] if kind == "container" else about["Spec"].get("Labels")
    return str((labels or {}).get("dgx-spark.stack", ""))


def release(stack: str, kind: str, name: str) -> None:
    """Remove this stack's services, without which nothing uses its configs and secrets."""
    listing = ["docker", "service", "ls", "--quiet", "--filter", f"label=dgx-spark.stack={stack}"]
    services = subprocess.run(listing, capture_output=True, text=True).stdout.split()
    if services:
        subprocess.run(["docker", "service", "rm", *services], capture_output=True)
    deadline = time.monotonic() + LIMIT
    while True:
        done = subprocess.run(["docker", kind, "rm", name], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            sys.exit(f"docker {kind} rm {name}: {done.stderr.strip()}")
        time.sleep(1)


def main() -> None:
    inputs: Clearing = job()[1]
    kind, name, holder = inputs["kind"], inputs["name"], lease_holder()
    if holder not in ("", inputs["stack"]):
        sys.exit(held_by(holder))
    about = found(kind, name)
    if about is None:
        return
    owner = stack_of(kind, about)
    if owner != inputs["stack"]:
        whose = f"the stack {owner}'s" if owner else "not this stack's"
        sys.exit(f"there is a {kind} {name} already, and it is {whose}: rename or remove it")
    say(f"removing the {kind} {name}, which the state does not know")
    if kind == "container":
        remove_container(about["Id"])
    else:
        release(inputs["stack"], kind, name)


main()
