"""The head as Swarm manager.

stdin   JSON: port (of the manager), keep (leave the Swarm as it is when removed), record
apply   makes a Swarm where there is none, on the address by which this Spark is reached (Ethernet; the fabric is
        for the ranks); stdout: JSON {"node", "cluster", "address", "token"}, of which the token is a secret
remove  leaves the Swarm if it was made here
"""

from __future__ import annotations

import json
import sys

from common import (
    Docker,
    docker,
    ethernet_address,
    has_swarm_bridge,
    leave_swarm,
    read_record,
    remove_record,
    run,
    write_record,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Manager, SwarmManager


def apply(given: SwarmManager) -> None:
    swarm = Docker().get("/info")["Swarm"]
    former = read_record(given["record"])
    made, bridge = former.get("made", False), former.get("bridge", False)
    if swarm["LocalNodeState"] == "inactive":
        bridge = bridge or (not made and has_swarm_bridge())
        docker("swarm", "init", "--advertise-addr", ethernet_address())
        made, swarm = True, Docker().get("/info")["Swarm"]
    if not swarm["ControlAvailable"]:
        sys.exit("this Spark is a worker in a Swarm of others: `docker swarm leave` on it, or serving.launcher mpi")
    token = docker("swarm", "join-token", "--quiet", "worker")
    write_record(given["record"], {"swarm": swarm["NodeID"]}, made=made, bridge=bridge)
    address = f"{swarm['NodeAddr']}:{given['port']}"
    cluster = swarm["Cluster"]["ID"]
    answer: Manager = {"node": swarm["NodeID"], "cluster": cluster, "address": address, "token": token}
    print(json.dumps(answer))


def remove(given: SwarmManager) -> None:
    if not given["keep"]:
        leave_swarm(given["record"], "--force")
    remove_record(given["record"])


run(apply, remove)
