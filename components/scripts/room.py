"""Make room for a server: stop what this stack ran on this Spark and no longer wants.

Pulumi deletes what a program no longer has at the very end of a run, when the new server should have answered
already; but two engines don't fit into one GPU. So it is stopped here, and left for Pulumi to delete.

stdin   JSON: stack, components [that stay], services (whether they are Swarm services), record
remove  nothing but the record
"""

import json
import subprocess
import urllib.parse

from common import Docker, remove_record, run, say, write_record


def apply(given: dict) -> None:
    wanted = urllib.parse.quote(json.dumps({"label": [f"dgx-spark.stack={given['stack']}"]}))
    for container in Docker().get(f"/containers/json?filters={wanted}"):
        labels = container["Labels"]
        service = labels.get("com.docker.swarm.service.id")
        if labels["dgx-spark.component"] in given["components"] and bool(service) == given["services"]:
            continue
        name = container["Names"][0].lstrip("/")
        say(f"stopping {name}")
        if service:
            # Known to the manager alone; a worker's task ends with that of the head, which leads it.
            subprocess.run(["docker", "service", "scale", f"{service}=0"], capture_output=True)
        else:
            subprocess.run(["docker", "stop", "--time", "30", container["Id"]], check=True, capture_output=True)
    write_record(given["record"], {})


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
