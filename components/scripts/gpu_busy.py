"""What this Spark's GPU does over some seconds.

stdin   JSON: seconds
stdout  JSON: [{busy, temperature, power, clock}], one per look (common.gpu_now)
"""

import json
import time

from common import gpu_now, job

PAUSE = 0.2
"""Seconds between two looks."""

_, given = job()
deadline, seen = time.monotonic() + given["seconds"], []
while time.monotonic() < deadline:
    seen.append(gpu_now())
    time.sleep(PAUSE)
print(json.dumps(seen))
