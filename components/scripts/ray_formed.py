"""Wait until every Spark has joined Ray with its GPU, as seen by the head itself.

stdin   JSON: stack, head (container), addresses [of all nodes], port, wait (seconds)
stderr  progress; on failure the reason, last
"""

from __future__ import annotations

import subprocess
import sys

from shared.job import job
from shared.state import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import RayFormed


def main() -> None:
    inputs: RayFormed = job()[1]
    address = f"{inputs['addresses'][0]}:{inputs['port']}"
    argv = ["docker", "exec", "-i", inputs["head"], "python3", "-c", program(inputs["stack"], "ray_ready.py")]
    argv += [address, str(inputs["wait"]), *inputs["addresses"]]
    try:
        done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, timeout=inputs["wait"] + 60)
    except subprocess.TimeoutExpired:
        sys.exit(f"Ray's head hangs; its log: docker logs {inputs['head']}")
    if done.returncode:
        log = subprocess.run(["docker", "logs", "--tail", "15", inputs["head"]], capture_output=True, text=True)
        print(log.stdout + log.stderr, file=sys.stderr)
        sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")


main()
