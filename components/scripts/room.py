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

from common import LEASE, containers, docker, lease_holder, name_of, remove_record, run, say, take_lease, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Room

GRACE = "30"
"""Seconds between SIGTERM and SIGKILL."""


def stop_unwanted(given: Room) -> None:
    for container in containers(given["stack"]):
        labels = container["Labels"]
        service = labels.get("com.docker.swarm.service.id")
        component = labels["dgx-spark.component"]
        stays = component in given["beside"] or (
            component in given["components"] and bool(service) == given["services"]
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


def apply(given: Room) -> None:
    owner = lease_holder() or given["stack"]
    if owner != given["stack"] and not given["takeover"]:
        sys.exit(f"this Spark is held by the stack {owner}: destroy that one first, or take it over")
    if owner != given["stack"]:
        remove_all(owner)
    stop_unwanted(given)
    write_record(given["record"], {"lines": {LEASE: [take_lease(given["stack"])]}})


def remove(given: Room) -> None:
    remove_record(given["record"])


run(apply, remove)
