"""Wait until every Spark has joined Ray with its GPU. Runs inside the head's containers.

usage   ray_ready.py [--weights DIRECTORY] ADDRESS SECONDS NODE_ADDRESS…
        --weights   that the ranks will load: their pages are dropped on every Spark (together.drop_pages)
exit    0 all are there | 3 not within SECONDS: the reason is the last line of stderr | else Ray ended meanwhile
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NoReturn

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LATE = 3

PAUSE = 0.2
"""Seconds until Ray is asked again."""

DROP_LIMIT = 60
"""Seconds for all Sparks to have dropped the weights' pages; without it, the engine may still find enough memory."""


def all_there(address: str, limit: int, wanted: list[str]) -> list[str]:
    """Ray's own ids of the nodes, once all are there."""
    deadline = time.monotonic() + limit
    while True:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            break
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                late(f"Ray's head does not answer at {address}")
            time.sleep(PAUSE)
    said = None
    while True:
        nodes = {n["NodeManagerAddress"]: n for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU", 0) >= 1}
        missing = sorted(set(wanted) - set(nodes))
        if not missing:
            print(f"{len(wanted)} Sparks in Ray", file=sys.stderr)
            return [nodes[address]["NodeID"] for address in wanted]
        if time.monotonic() > deadline:
            late(f"after {limit} s these Sparks have not joined Ray: {', '.join(missing)}")
        if missing != said:
            print(f"waiting for {', '.join(missing)} to join Ray", file=sys.stderr, flush=True)
            said = missing
        time.sleep(PAUSE)


def late(reason: str) -> NoReturn:
    print(reason, file=sys.stderr)
    sys.exit(LATE)


def drop_everywhere(directory: str, nodes: list[str]) -> None:
    import together

    # A worker's container has no such module.
    ray.cloudpickle.register_pickle_by_value(together)
    task = ray.remote(num_cpus=0)(together.drop_pages)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(directory)
        for node in nodes
    ]
    _, busy = ray.wait(asked, num_returns=len(asked), timeout=DROP_LIMIT)
    if busy:
        print(f"{len(busy)} Sparks have not dropped the weights' pages", file=sys.stderr)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--weights")
    words.add_argument("address")
    words.add_argument("limit", type=int)
    words.add_argument("nodes", nargs="+")
    given = words.parse_args()
    nodes = all_there(given.address, given.limit, given.nodes)
    if given.weights:
        drop_everywhere(given.weights, nodes)


main()
