"""What a test asked this Spark's engines to do, read once when the container starts."""

import json
import os
from dataclasses import dataclass, fields

FILE = "/etc/spark-knobs.json"


@dataclass(frozen=True)
class Knobs:
    load_seconds: float = 0.5
    """Seconds that loading the weights takes on each rank."""

    crash: str = ""
    """Not empty: the engine dies while loading, with this as its error."""

    crash_model: str = ""
    """Not empty: only a model whose path holds this dies."""

    never_ready: bool = False
    """Loading never ends."""

    free_gib: float = 119.0
    """Memory free at start; GB10 has 121.69 GiB for CPU and GPU together."""


def knobs() -> Knobs:
    if not os.path.exists(FILE):
        return Knobs()
    with open(FILE) as stream:
        return Knobs(**json.load(stream))


NAMES = [field.name for field in fields(Knobs)]
