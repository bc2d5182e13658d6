"""Wait, on the manager, until every Spark is in the Swarm with its GPU; take away what stale nodes left.

stdin   JSON: nodes {name: node id}, kind (of the generic resource), wait (seconds)
remove  takes the nodes that have left out of the manager's list
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from shared.docker import docker
from shared.job import run, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import SwarmMembers


LEAVING = 30
"""Seconds within which the manager notices that a node has left; a stranger of the same name stays."""


def nodes() -> list:
    ids = docker("node", "ls", "--quiet").split()
    return json.loads(docker("node", "inspect", *ids)) if ids else []


def lacks(node: dict, kind: str) -> str:
    """'' where the node is ready and has its GPU."""
    if node["Status"]["State"] != "ready":
        return f"is {node['Status']['State']}"
    resources = node["Description"]["Resources"].get("GenericResources") or []
    kinds = {spec["Kind"] for resource in resources for spec in resource.values()}
    return "" if kind in kinds else f"does not offer its {kind}: Docker was not restarted with the new daemon.json?"


def apply(inputs: SwarmMembers) -> None:
    began = time.monotonic()
    deadline = began + inputs["wait"]
    while True:
        found = {node["ID"]: node for node in nodes()}
        wrong = {
            name: lacks(found[id_], inputs["kind"]) if id_ in found else "has not joined"
            for name, id_ in inputs["nodes"].items()
        }
        missing = [f"{name} {what}" for name, what in wrong.items() if what]
        leaving = former(found, inputs)
        if not missing and (not leaving or time.monotonic() - began > LEAVING):
            break
        if time.monotonic() > deadline:
            sys.exit(f"the Swarm is not whole: {'; '.join(missing)}")
        for id_ in leaving:
            if found[id_]["Status"]["State"] == "down":
                say(f"removing the stale node {id_} of {found[id_]['Description']['Hostname']}")
                docker("node", "rm", "--force", id_)
        time.sleep(1)


def former(found: dict, inputs: SwarmMembers) -> list:
    """Nodes that our Sparks were before they joined again: same host name, another id."""
    ids = set(inputs["nodes"].values())
    ours = {found[id_]["Description"]["Hostname"] for id_ in ids & set(found)}
    return [id_ for id_, node in found.items() if id_ not in ids and node["Description"]["Hostname"] in ours]


def remove(inputs: SwarmMembers) -> None:
    subprocess.run(["docker", "node", "rm", "--force", *list(inputs["nodes"].values())[1:]], capture_output=True)


run(apply, remove)
