"""Another Spark as Swarm worker.

stdin   JSON: manager (text: JSON of swarm_manager.py), port (of managers), keep, record
apply   joins the head's Swarm; stdout: this node's id
remove  leaves the Swarm if it was joined here
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
    from contracts import Manager, SwarmWorker


def apply(inputs: SwarmWorker) -> None:
    manager: Manager = json.loads(inputs["manager"])
    swarm = Docker().get("/info")["Swarm"]
    former = read_record(inputs["record"])
    if former.get("made") and swarm["LocalNodeState"] != "inactive" and former.get("cluster") != manager["cluster"]:
        # Of a Swarm of ours that is gone.
        docker("swarm", "leave", "--force")
        swarm = Docker().get("/info")["Swarm"]
    made, bridge = former.get("made", False), former.get("bridge", False)
    if swarm["LocalNodeState"] == "inactive":
        bridge = bridge or (not made and has_swarm_bridge())
        join(manager, ethernet_address(), inputs["port"])
        made, swarm = True, Docker().get("/info")["Swarm"]
    elif not made and (swarm.get("Cluster") or {}).get("ID") not in (None, manager["cluster"]):
        sys.exit("this Spark is in a Swarm of others: `docker swarm leave` on it, or serving.launcher mpi")
    write_record(inputs["record"], {"swarm": swarm["NodeID"]}, made=made, bridge=bridge, cluster=manager["cluster"])
    print(swarm["NodeID"])


def join(manager: Manager, address: str, port: int) -> None:
    """By Docker's API: argv, which everybody on this Spark may read, is no place for the token."""
    order = {"RemoteAddrs": [manager["address"]], "JoinToken": manager["token"]}
    order |= {"ListenAddr": f"0.0.0.0:{port}", "AdvertiseAddr": address}
    try:
        Docker().post("/swarm/join", order)
    except OSError as error:
        sys.exit(f"can't join the Swarm at {manager['address']}: {error}")


def remove(inputs: SwarmWorker) -> None:
    if not inputs["keep"]:
        leave_swarm(inputs["record"])
    remove_record(inputs["record"])


run(apply, remove)
