"""What NCCL says of its network in the logs of a stack's containers on this Spark.

stdin   JSON: stack
stdout  JSON: lines
"""

import json
import subprocess

from common import docker, job

WORDS = ("NCCL INFO NET/", "NCCL INFO Using network")

_, given = job()
found = []
for container in docker("ps", "--quiet", "--filter", f"label=dgx-spark.stack={given['stack']}").split():
    said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, errors="replace")
    found += [line for line in (said.stdout + said.stderr).splitlines() if any(word in line for word in WORDS)]
print(json.dumps(found))
