"""What the probe does not look at, for `./spark doctor`. Read-only.

stdin   JSON: cache (may begin with ~), peers {node: fabric address}, interface and mtu (of the fabric; '' and 0 for
        none), ports [TCP ports that peers listen on, or will], texts (whether they are wanted)
stdout  JSON: time (seconds since the epoch), kernel, system, memlock (bytes, -1 unlimited, of dockerd), foreign
        [paths in the cache that the login user can't write and has not kept so], pings {node: `answers`, `small only`
        or `silent`}, ports {node: {port: `open`, `closed` or `filtered`}}, guard (what ends processes before memory is
        full, '' for none), swarm {state, nodes}, containers [names of other people's that run], texts {command:
        output, for a report}
"""

from __future__ import annotations

import glob
import json
import os
import platform
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from shared.docker import Docker, labels_of, name_of
from shared.files import read
from shared.guard import state
from shared.job import job
from shared.links import ping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Doctor, Examined, SwarmState

WAIT = 2
"""Seconds after which a port counts as filtered: a peer on the fabric answers within microseconds."""

MANY = 20
"""Paths that are named, at most."""

GUARDS = ("earlyoom", "systemd-oomd", "nohang", "nohang-desktop")
"""Names of processes that end others in time: on unified memory a full Spark hangs whole. Source: vllm#46307."""

TEXTS = (
    "uname -a", "cat /etc/os-release", "nvidia-smi", "ibdev2netdev", "ip -br addr", "docker version",
    "docker ps --all --format '{{.Names}} {{.Image}} {{.Status}}'", "free -h", "df -h", "uptime",
)  # fmt: skip


def output(command: str) -> str:
    try:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "no answer within 20 s"
    return (done.stdout + done.stderr).strip()


def memlock() -> int | None:
    """Docker's daemon must be unlimited for its containers to be; None where it can't be seen."""
    pid = read("/var/run/docker.pid")
    for line in read(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max locked memory"):
            value = line.split()[3]
            return -1 if value == "unlimited" else int(value)
    return None


def foreign(cache: str) -> list:
    found = []
    for base, _, names in os.walk(cache):
        for path in [base, *(os.path.join(base, name) for name in names)]:
            if not os.path.islink(path) and not os.access(path, os.W_OK) and not kept(path):
                found.append(path)
        if len(found) >= MANY:
            break
    return found[:MANY]


def kept(path: str) -> bool:
    """One's own file that is not to be written any more: huggingface_hub's shared blobs are such, since 1.32."""
    return os.path.isfile(path) and os.stat(path).st_uid == os.geteuid()


def guard() -> str:
    for path in glob.glob("/proc/[0-9]*/comm"):
        if read(path) in GUARDS:
            return read(path)
    return ""


def port(address: str, number: int) -> str:
    try:
        with socket.create_connection((address, number), timeout=WAIT):
            return "open"
    except ConnectionRefusedError:
        return "closed"
    except OSError:
        return "filtered"


def ports(address: str, inputs: Doctor) -> dict[str, str]:
    with ThreadPoolExecutor(max(1, len(inputs["ports"]))) as pool:
        states = pool.map(lambda number: port(address, number), inputs["ports"])
        return dict(zip(map(str, inputs["ports"]), states, strict=True))


def swarm() -> SwarmState:
    try:
        found = Docker().get("/info")["Swarm"]
    except OSError:
        return {"state": "unknown", "nodes": 0}
    return {"state": found["LocalNodeState"], "nodes": found.get("Nodes", 0)}


def others() -> list:
    try:
        found = Docker().get("/containers/json")
    except OSError:
        return []
    return sorted(name_of(c) for c in found if "dgx-spark.stack" not in labels_of(c))


def main() -> None:
    inputs: Doctor = job()[1]
    peers = inputs["peers"].items()
    found: Examined = {
        "time": time.time(),
        "kernel": platform.release(),
        "system": next((s[13:-1] for s in read("/etc/os-release").splitlines() if s[:12] == "PRETTY_NAME="), ""),
        "memlock": memlock(),
        "foreign": foreign(os.path.expanduser(inputs["cache"])),
        "pings": {node: ping(inputs["interface"], address, inputs["mtu"]) for node, address in peers},
        "ports": {node: ports(address, inputs) for node, address in peers},
        "guard": guard(),
        "wall": state(),
        "swarm": swarm(),
        "containers": others(),
        "texts": {command: output(command) for command in TEXTS} if inputs["texts"] else {},
    }
    print(json.dumps(found))


main()
