"""What NCCL says of its network in the logs of a stack's containers on this Spark.

stdin   JSON: stack
stdout  JSON: a list, one of common.networks for each rank that speaks there
"""

from __future__ import annotations

import json
import subprocess

from common import docker, job, networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Nccl, Network

given: Nccl = job()[1]
found: list[Network] = []
for container in docker("ps", "--quiet", "--filter", f"label=dgx-spark.stack={given['stack']}").split():
    said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, errors="replace")
    found += networks((said.stdout + said.stderr).splitlines())
print(json.dumps(found))
