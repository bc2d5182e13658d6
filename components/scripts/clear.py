"""Make way for what Pulumi is about to make: this stack's own of that name is unknown to the state by then, and goes.

stdin   JSON: stack, kind (container, service, config or secret), name, wanted (null, or what Pulumi will make, which
        stays where it is just that)
stdout  JSON: id of the container that stays or null, differs [in what it is not as wanted]; nothing without `wanted`
exit    1 where it is not this stack's: nothing of others is touched; and where another stack has taken the Spark
        meanwhile
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse

from shared.docker import Docker, attended, file_in, remove_container
from shared.job import job, said_in_a_line, say
from shared.records import held_by, lease_holder
from shared.same import differences

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


def users(stack: str, kind: str, id_: str) -> list[str]:
    """Ids of this stack's services that have this config or secret."""
    ours = urllib.parse.quote(json.dumps({"label": [f"dgx-spark.stack={stack}"]}))

    def has(service: dict[str, Any]) -> bool:
        held = service["Spec"]["TaskTemplate"]["ContainerSpec"].get(f"{kind.title()}s") or []
        return any(one[f"{kind.title()}ID"] == id_ for one in held)

    return [service["ID"] for service in Docker().get(f"/services?filters={ours}") or [] if has(service)]


def release(stack: str, kind: str, name: str, id_: str) -> None:
    """Remove it, and before it the services that would not let it go."""
    services = [] if kind == "service" else users(stack, kind, id_)
    if services:
        subprocess.run(["docker", "service", "rm", *services], capture_output=True)
    deadline = time.monotonic() + LIMIT
    while True:
        done = subprocess.run(["docker", kind, "rm", name], capture_output=True, text=True)
        if done.returncode == 0 or found(kind, name) is None:
            return
        if time.monotonic() > deadline:
            sys.exit(f"docker {kind} rm {name}: {done.stderr.strip()}")
        time.sleep(1)


def stays(wanted: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether the container is what is wanted; says so on stdout."""
    image = Docker().get(f"/images/{urllib.parse.quote(wanted['image'], safe='/:@')}/json") or {}
    differs = differences(wanted, about, image, lambda path: file_in(about["Id"], path))
    print(json.dumps({"id": None if differs else about["Id"], "differs": differs}))
    return not differs


def main() -> None:
    inputs: Clearing = job()[1]
    kind, name, holder = inputs["kind"], inputs["name"], lease_holder()
    if holder not in ("", inputs["stack"]):
        sys.exit(held_by(holder))
    attended()
    about = found(kind, name)
    if about is None:
        return
    owner = stack_of(kind, about)
    if owner != inputs["stack"]:
        whose = f"the stack {owner}'s" if owner else "not this stack's"
        sys.exit(f"there is a {kind} {name} already, and it is {whose}: rename or remove it")
    if inputs["wanted"] and stays(inputs["wanted"], about):
        return
    say(f"removing the {kind} {name}, which the state does not know")
    if kind == "container":
        remove_container(about["Id"], about["Config"]["Labels"])
    else:
        release(inputs["stack"], kind, name, about["ID"])


with said_in_a_line():
    main()
