"""What NCCL says of its network in the logs of a stack's containers on this Spark.

stdin   JSON: stack
stdout  JSON: a list, one of `networks` (shared/nccl_log.py) for each rank that speaks there
"""

from __future__ import annotations

import json
import subprocess

from shared.docker import docker
from shared.job import job
from shared.nccl_log import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Nccl, Network

inputs: Nccl = job()[1]
found: list[Network] = []
for container in docker("ps", "--quiet", "--filter", f"label=dgx-spark.stack={inputs['stack']}").split():
    said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, errors="replace")
    found += networks((said.stdout + said.stderr).splitlines())
print(json.dumps(found))
