"""Wait, on the manager, until every Spark is in the Swarm with its GPU; take away what stale nodes left.

stdin   JSON: nodes {name: node id}, kind (of the generic resource), wait (seconds)
remove  takes the nodes that have left out of the manager's list
"""

import json
import subprocess
import sys
import time

from common import docker, run, say


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


def apply(given: dict) -> None:
    deadline = time.monotonic() + given["wait"]
    while True:
        found = {node["ID"]: node for node in nodes()}
        wrong = {
            name: lacks(found[id_], given["kind"]) if id_ in found else "has not joined"
            for name, id_ in given["nodes"].items()
        }
        missing = [f"{name} {what}" for name, what in wrong.items() if what]
        if not missing:
            break
        if time.monotonic() > deadline:
            sys.exit(f"the Swarm is not whole: {'; '.join(missing)}")
        time.sleep(1)
    ours = {found[id_]["Description"]["Hostname"] for id_ in given["nodes"].values()}
    for id_, node in found.items():
        stale = node["Status"]["State"] == "down" and node["Description"]["Hostname"] in ours
        if stale and id_ not in given["nodes"].values():
            say(f"removing the stale node {id_} of {node['Description']['Hostname']}")
            docker("node", "rm", "--force", id_)


def remove(given: dict) -> None:
    subprocess.run(["docker", "node", "rm", "--force", *list(given["nodes"].values())[1:]], capture_output=True)


run(apply, remove)
