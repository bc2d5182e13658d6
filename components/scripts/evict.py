"""Make room for a server, when its image and weights are in place.

Two engines don't fit into one GPU. What this stack ran here and no longer wants is stopped, and left for Pulumi,
which deletes it at the very end of a run, when the new server should have answered already. What the stack that
held this Spark ran is removed, by its label and never by a name, and the lease goes over.

stdin   JSON: stack, components [that stay], services (whether they are Swarm services), beside [components that stay
        and are none], takeover, record
remove  nothing but the record
"""

from __future__ import annotations

import subprocess
import sys

from shared.docker import containers, docker, name_of
from shared.job import run, say
from shared.records import lease_holder, remove_record, take_lease, write_record
from shared.state import LEASE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Eviction

GRACE = "30"
"""Seconds between SIGTERM and SIGKILL."""


def stop_unwanted(inputs: Eviction) -> None:
    for container in containers(inputs["stack"]):
        labels = container["Labels"]
        service = labels.get("com.docker.swarm.service.id")
        component = labels["dgx-spark.component"]
        stays = component in inputs["beside"] or (
            component in inputs["components"] and bool(service) == inputs["services"]
        )
        if stays or container["State"] != "running":
            continue
        say(f"stopping {name_of(container)}")
        if service:
            # Known to the manager alone; a worker's task ends with that of the head, which leads it.
            subprocess.run(["docker", "service", "scale", f"{service}=0"], capture_output=True)
        else:
            # Else it would come back when Docker is restarted: it ends by a signal, as a failure.
            docker("update", "--restart=no", container["Id"])
            docker("stop", "--time", GRACE, container["Id"])


def remove_all(stack: str) -> None:
    services = ["docker", "service", "ls", "--quiet", "--filter", f"label=dgx-spark.stack={stack}"]
    # Fails where this Spark manages no Swarm.
    found = subprocess.run(services, capture_output=True, text=True)
    for service in found.stdout.split() if found.returncode == 0 else []:
        docker("service", "rm", service)
    for container in containers(stack):
        say(f"removing {name_of(container)} of {stack}")
        subprocess.run(["docker", "stop", "--time", GRACE, container["Id"]], capture_output=True)
        # A service's container goes by itself.
        subprocess.run(["docker", "rm", "--force", container["Id"]], capture_output=True)


def apply(inputs: Eviction) -> None:
    owner = lease_holder() or inputs["stack"]
    if owner != inputs["stack"] and not inputs["takeover"]:
        sys.exit(f"this Spark is held by the stack {owner}: destroy that one first, or take it over")
    if owner != inputs["stack"]:
        remove_all(owner)
    stop_unwanted(inputs)
    write_record(inputs["record"], {"lines": {LEASE: [take_lease(inputs["stack"])]}})


def remove(inputs: Eviction) -> None:
    remove_record(inputs["record"])


run(apply, remove)
