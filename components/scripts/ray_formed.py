"""Wait until every Spark has joined Ray with its GPU, as seen by the head itself.

stdin   JSON: head (container), addresses [of all nodes], port, wait (seconds)
stderr  progress; on failure the reason, last
"""

import subprocess
import sys

from common import job

ASK = """
import sys, time, ray
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
"""


def main() -> None:
    _, given = job()
    address = f"{given['addresses'][0]}:{given['port']}"
    argv = [
        "docker",
        "exec",
        "-i",
        given["head"],
        "python3",
        "-c",
        ASK,
        address,
        str(given["wait"]),
        *given["addresses"],
    ]
    try:
        done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, timeout=given["wait"] + 60)
    except subprocess.TimeoutExpired:
        sys.exit(f"Ray's head hangs; its log: docker logs {given['head']}")
    if done.returncode:
        log = subprocess.run(["docker", "logs", "--tail", "15", given["head"]], capture_output=True, text=True)
        print(log.stdout + log.stderr, file=sys.stderr)
        sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")


main()
