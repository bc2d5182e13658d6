"""The head as Swarm manager.

stdin   JSON: port (of the manager), keep (leave the Swarm as it is when removed), record
apply   makes a Swarm where there is none, on the address by which this Spark is reached (Ethernet; the fabric is
        for the ranks); stdout: JSON {"node", "cluster", "address", "token"}, of which the token is a secret
remove  leaves the Swarm if it was made here
"""

from __future__ import annotations

import json
import sys

from shared.docker import Docker, docker
from shared.job import run
from shared.links import ethernet_address
from shared.records import read_record, remove_record, write_record
from shared.swarm import has_swarm_bridge, leave_swarm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Manager, SwarmManager


def apply(inputs: SwarmManager) -> None:
    swarm = Docker().get("/info")["Swarm"]
    former = read_record(inputs["record"])
    made, bridge = former.get("made", False), former.get("bridge", False)
    if swarm["LocalNodeState"] == "inactive":
        bridge = bridge or (not made and has_swarm_bridge())
        docker("swarm", "init", "--advertise-addr", ethernet_address())
        made, swarm = True, Docker().get("/info")["Swarm"]
    if not swarm["ControlAvailable"]:
        sys.exit("this Spark is a worker in a Swarm of others: `docker swarm leave` on it, or serving.launcher mpi")
    token = docker("swarm", "join-token", "--quiet", "worker")
    write_record(inputs["record"], {"swarm": swarm["NodeID"]}, made=made, bridge=bridge)
    address = f"{swarm['NodeAddr']}:{inputs['port']}"
    cluster = swarm["Cluster"]["ID"]
    answer: Manager = {"node": swarm["NodeID"], "cluster": cluster, "address": address, "token": token}
    print(json.dumps(answer))


def remove(inputs: SwarmManager) -> None:
    if not inputs["keep"]:
        leave_swarm(inputs["record"], "--force")
    remove_record(inputs["record"])


run(apply, remove)
