"""Wait until every Spark has joined Ray with its GPU. Runs inside the head's containers.

usage   ray_ready.py ADDRESS SECONDS NODE_ADDRESS…
exit    0 all are there; else the reason is the last line of stderr
"""

import sys
import time

import ray

address, limit, *wanted = sys.argv[1:]
deadline = time.monotonic() + int(limit)
while True:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        break
    except (ConnectionError, RuntimeError):
        if time.monotonic() > deadline:
            sys.exit(f"Ray's head does not answer at {address}")
        time.sleep(1)
said = None
while True:
    alive = {n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU", 0) >= 1}
    missing = sorted(set(wanted) - alive)
    if not missing:
        break
    if time.monotonic() > deadline:
        sys.exit(f"after {limit} s these Sparks have not joined Ray: {', '.join(missing)}")
    if missing != said:
        print(f"waiting for {', '.join(missing)} to join Ray", file=sys.stderr, flush=True)
        said = missing
    time.sleep(1)
print(f"{len(wanted)} Sparks in Ray", file=sys.stderr)
