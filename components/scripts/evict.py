"""Make room for a server, when its image and weights are in place.

Two engines don't fit into one GPU. What this stack ran here and no longer wants goes, whether Pulumi's state knows it
or not; what it knows, it would delete at the very end of a run, when the new server should have answered already. What
the stack that held this Spark ran goes too, by its label and never by a name, and so does the lease.

stdin   JSON: stack, components [that stay], services (whether they are Swarm services), beside [components that stay
        and are none], takeover, record
remove  nothing but the record
"""

from __future__ import annotations

import subprocess
import sys

from shared.docker import attended, containers, docker, name_of, remove_container
from shared.job import run, say
from shared.records import claim, held_by, lease_holder, lease_line, remove_record, write_record
from shared.state import LEASE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Eviction


def remove_unwanted(inputs: Eviction) -> None:
    for container in containers(inputs["stack"]):
        labels = container["Labels"]
        service = labels.get("com.docker.swarm.service.id")
        component = labels["dgx-spark.component"]
        stays = component in inputs["beside"] or (
            component in inputs["components"] and bool(service) == inputs["services"]
        )
        if stays:
            continue
        say(f"removing {name_of(container)}")
        if service:
            # Known to the manager alone; a worker's task ends with that of the head, which leads it. Pulumi deletes the
            # service, and would fail where it is gone.
            subprocess.run(["docker", "service", "scale", f"{service}=0"], capture_output=True)
        else:
            remove_container(container["Id"], labels)


def remove_all(stack: str) -> None:
    services = ["docker", "service", "ls", "--quiet", "--filter", f"label=dgx-spark.stack={stack}"]
    # Fails where this Spark manages no Swarm.
    found = subprocess.run(services, capture_output=True, text=True)
    for service in found.stdout.split() if found.returncode == 0 else []:
        docker("service", "rm", service)
    for container in containers(stack):
        say(f"removing {name_of(container)} of {stack}")
        remove_container(container["Id"], container["Labels"])


def apply(inputs: Eviction) -> None:
    attended()
    stack, former = inputs["stack"], lease_holder()
    if former not in ("", stack) and inputs["takeover"]:
        remove_all(former)
    owner = claim(stack, from_=former if inputs["takeover"] else "")
    if owner != stack:
        sys.exit(held_by(owner))
    remove_unwanted(inputs)
    write_record(inputs["record"], {"lines": {LEASE: [lease_line(stack)]}})


def remove(inputs: Eviction) -> None:
    remove_record(inputs["record"])


run(apply, remove)
