"""What NCCL says of its network in the logs of a stack's containers on this Spark.

stdin   JSON: stack
stdout  JSON: what it uses (`IB`, `Socket`, a plugin's name), each once
"""

import json
import subprocess

from common import docker, job, transports

_, given = job()
found: set = set()
for container in docker("ps", "--quiet", "--filter", f"label=dgx-spark.stack={given['stack']}").split():
    said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, errors="replace")
    found |= transports((said.stdout + said.stderr).splitlines())
print(json.dumps(sorted(found)))
