"""Wait until every Spark has joined Ray with its GPU, as seen by the head itself.

A head that ends meanwhile is started again by Docker: on a busy Spark one of Ray's own processes may come too late, and
Ray ends the others with it.

stdin   JSON: stack, head (container), addresses [of all nodes], port, wait (seconds)
stderr  progress; on failure the reason, last
"""

from __future__ import annotations

import subprocess
import sys
import time

from shared.job import job, say
from shared.state import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import RayFormed

LATE = 3
"""Exit code of inside/ray_ready.py: not in time. With any other, what it asked has ended."""

PAUSE = 2
"""Seconds until the head is asked again."""


def ask(inputs: RayFormed, limit: int) -> subprocess.CompletedProcess[str]:
    address = f"{inputs['addresses'][0]}:{inputs['port']}"
    argv = ["docker", "exec", "-i", inputs["head"], "python3", "-c", program(inputs["stack"], "ray_ready.py")]
    argv += [address, str(limit), *inputs["addresses"]]
    try:
        return subprocess.run(argv, stderr=subprocess.PIPE, text=True, timeout=limit + 60)
    except subprocess.TimeoutExpired:
        sys.exit(f"Ray's head hangs; its log: docker logs {inputs['head']}")


def fail(inputs: RayFormed, done: subprocess.CompletedProcess[str]) -> None:
    log = subprocess.run(["docker", "logs", "--tail", "15", inputs["head"]], capture_output=True, text=True)
    print(log.stdout + log.stderr, file=sys.stderr)
    sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")


def main() -> None:
    inputs: RayFormed = job()[1]
    deadline = time.monotonic() + inputs["wait"]
    while (done := ask(inputs, max(1, round(deadline - time.monotonic())))).returncode:
        if done.returncode == LATE or time.monotonic() + PAUSE > deadline:
            fail(inputs, done)
        say("Ray's head has ended; Docker starts it again")
        time.sleep(PAUSE)


main()
