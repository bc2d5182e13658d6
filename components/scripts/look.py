"""How this Spark is doing just now, as JSON on stdout: for people who look, never for the plan.

stdin   JSON: stack (ORG/PROJECT/STACK), cache (may begin with ~)
stdout  JSON: gpu {busy, temperature, power, clock} (numbers, null where the driver prints none), memory and disk
        {total, free} (bytes), load, uptime (seconds), lease (stack or ''), containers [{component, name, state, status,
        image}] of the stack
"""

import json
import os
import shutil
import subprocess

from common import containers, existing, job, lease_holder, name_of, read

GPU = {"busy": "utilization.gpu", "temperature": "temperature.gpu", "power": "power.draw", "clock": "clocks.sm"}
"""Per cent, degrees Celsius, watts, MHz. Source: nvidia-smi --help-query-gpu."""


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def gpu() -> dict:
    argv = ["nvidia-smi", f"--query-gpu={','.join(GPU.values())}", "--format=csv,noheader,nounits"]
    try:
        line = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return dict.fromkeys(GPU)
    return dict(zip(GPU, map(number, line.split(", ")), strict=True))


def shown(stack: str) -> list:
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


def disk(path: str) -> dict:
    usage = shutil.disk_usage(existing(path))
    return {"total": usage.total, "free": usage.free}


def main() -> None:
    _, given = job()
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in read("/proc/meminfo").splitlines()}
    print(
        json.dumps(
            {
                "gpu": gpu(),
                "memory": {"total": memory["MemTotal"], "free": memory["MemAvailable"]},
                "disk": disk(os.path.expanduser(given["cache"])),
                "load": os.getloadavg()[0],
                "uptime": float(read("/proc/uptime").split()[0]),
                "lease": lease_holder(),
                "containers": shown(given["stack"]),
            }
        )
    )


main()
