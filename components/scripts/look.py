"""How this Spark is doing just now, as JSON on stdout: for people who look, never for the plan.

stdin   JSON: stack (ORG/PROJECT/STACK), cache (may begin with ~)
stdout  JSON: gpu {busy, temperature, power, clock} (numbers, null where the driver prints none), memory and disk
        {total, free} (bytes), load, uptime (seconds), lease (stack or ''), containers [{component, name, state, status,
        image}] of the stack, startup {started, port, health, answer} of its endpoint on the head, else null (watch.py)
"""

from __future__ import annotations

import json
import os
import shutil

from shared.docker import containers, name_of
from shared.files import existing, read
from shared.gpu import gpu_now
from shared.job import job
from shared.records import lease_holder
from shared.state import record_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Look, Looked, ShownContainer, Space


def shown(stack: str) -> list[ShownContainer]:
    try:
        found = containers(stack)
    except OSError:
        return []
    return sorted(
        (
            {
                "component": container["Labels"]["dgx-spark.component"],
                "name": name_of(container),
                "state": container["State"],
                "status": container["Status"],
                "image": container["ImageID"],
            }
            for container in found
        ),
        key=lambda container: container["name"],
    )


def disk(path: str) -> Space:
    usage = shutil.disk_usage(existing(path))
    return {"total": usage.total, "free": usage.free}


def main() -> None:
    inputs: Look = job()[1]
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in read("/proc/meminfo").splitlines()}
    found: Looked = {
        "gpu": gpu_now(),
        "memory": {"total": memory["MemTotal"], "free": memory["MemAvailable"]},
        "disk": disk(os.path.expanduser(inputs["cache"])),
        "load": os.getloadavg()[0],
        "uptime": float(read("/proc/uptime").split()[0]),
        "lease": lease_holder(),
        "containers": shown(inputs["stack"]),
        "startup": json.loads(read(record_path(inputs["stack"], "endpoint")) or "{}").get("startup"),
    }
    print(json.dumps(found))


main()
