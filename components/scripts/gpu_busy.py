"""How busy this Spark's GPU is over some seconds.

stdin   JSON: seconds
stdout  JSON: the highest utilization seen, per cent
"""

import json
import subprocess
import time

from common import job

PAUSE = 0.2
"""Seconds between two looks."""

_, given = job()
deadline, highest = time.monotonic() + given["seconds"], 0
while time.monotonic() < deadline:
    argv = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    said = subprocess.run(argv, capture_output=True, text=True).stdout.split()
    highest = max(highest, *(int(word) for word in said if word.isdigit()), 0)
    time.sleep(PAUSE)
print(json.dumps(highest))
