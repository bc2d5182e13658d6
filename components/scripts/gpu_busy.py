"""What this Spark's GPU does over some seconds.

stdin   JSON: seconds
stdout  JSON: [{busy, temperature, power, clock}], one per look (common.gpu_now)
"""

from __future__ import annotations

import json
import time

from common import gpu_now, job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Gpu, GpuBusy

PAUSE = 0.2
"""Seconds between two looks."""

given: GpuBusy = job()[1]
deadline = time.monotonic() + given["seconds"]
seen: list[Gpu] = []
while time.monotonic() < deadline:
    seen.append(gpu_now())
    time.sleep(PAUSE)
print(json.dumps(seen))
