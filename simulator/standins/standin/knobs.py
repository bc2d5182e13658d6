"""What a test asked this Spark's engines to do, read once when the container starts."""

import json
import os
from dataclasses import dataclass, fields

FILE = "/etc/spark-knobs.json"


@dataclass(frozen=True)
class Knobs:
    load_seconds: float = 0.5
    """Seconds that loading the weights takes on each rank."""

    compile_seconds: float = 0.0
    """Seconds that compiling takes on each rank where nothing is found that it compiled before."""

    crash: str = ""
    """Not empty: the engine dies while loading, with this as its error."""

    crash_model: str = ""
    """Not empty: only a model whose path holds this dies."""

    never_ready: bool = False
    """Loading never ends."""

    free_gib: float = 110.7
    """Memory free at start, of 121.69 GiB for CPU and GPU together: a share of 0.90 starts, 0.92 does not."""

    ray_gib: float = 3.0
    """What Ray's own processes take of it."""

    wedged: bool = False
    """/health answers, and no request is; also one that is asked when it serves already."""

    word_seconds: float = 0.0
    """Seconds that each word of an answer takes."""

    garbles: bool = False
    """The kernels are wrong for this GPU: all is healthy, and answers are noise."""

    mute: bool = False
    """Chats come back with neither content nor reasoning, while completions work (vLLM issue 41477)."""


def knobs() -> Knobs:
    if not os.path.exists(FILE):
        return Knobs()
    with open(FILE) as stream:
        return Knobs(**json.load(stream))


NAMES = [field.name for field in fields(Knobs)]
