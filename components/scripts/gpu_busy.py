"""What this Spark's GPU does over some seconds.

stdin   JSON: seconds
stdout  JSON: [{busy, temperature, power, clock}], one per look (shared/gpu.py)
"""

from __future__ import annotations

import json
import time

from shared.gpu import gpu_now
from shared.job import job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Gpu, GpuBusy

PAUSE = 0.2
"""Seconds between two looks."""

inputs: GpuBusy = job()[1]
deadline = time.monotonic() + inputs["seconds"]
seen: list[Gpu] = []
while time.monotonic() < deadline:
    seen.append(gpu_now())
    time.sleep(PAUSE)
print(json.dumps(seen))
