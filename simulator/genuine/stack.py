"""What a stack of the genuine engine has that one of real Sparks has not: all that follows from its having no GPU.

Everything else, the ranks' wrapper, command line, environment, files and limits, is as on real Sparks.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from simulator.genuine import beside as genuine_beside
from simulator.genuine import image, on_ray
from simulator.layout import CACHE

ADA, GRACE = "simulated/ada", "simulated/grace"
"""The models' repositories (model.py)."""

GB = 10**9
MEMORY, DISK = 10 * GB, 14 * GB
"""Bytes that two ranks, their server and the Sparks take, and that the image takes: as a layer, and in Docker's
store."""

BESIDE = 6 * GB
"""Bytes that a genuine gateway and chat page take on top of DISK, since Docker's store is copied while it is made."""


def config(executor: str = "mp") -> dict[str, Any]:
    """On top of what every simulated stack has (ops/demo.py)."""
    serving = {
        "executor": executor,
        # The models call tools as Hermes does.
        "toolCallParser": "hermes",
        # To compile a model for a processor needs a C++ compiler and a minute at each start.
        "extraArgs": ["--enforce-eager"],
        "env": {
            # GiB. Else the share of memory that a GPU gives is taken of the machine's memory, by every rank.
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # Each rank would have a processor to itself, and ranks on one machine don't know of each other.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # A part of tensor parallelism is compiled even so.
            "TORCHDYNAMO_DISABLE": "1",
        },
    }
    name = on_ray.IMAGE if executor == "ray" else image.IMAGE
    return {"dgx-spark:model": ADA, "dgx-spark:image": {"name": name}, "dgx-spark:serving": serving}


def lacking(*, beside: bool = False) -> str:
    """What this machine has too little of; '' where it can run all this. `beside`: with gateway and chat page."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(found[1]) * 1024 if found else 0
    if available < MEMORY:
        return f"{MEMORY / GB:.0f} GB of free memory are needed, and there are {available / GB:.1f}"
    free = shutil.disk_usage(_existing(CACHE)).free
    made = image.is_made() and (genuine_beside.is_made() or not beside)
    needed = DISK + (BESIDE if beside else 0)
    if not made and free < needed:
        return f"{needed / GB:.0f} GB are needed below {CACHE}, and {free / GB:.1f} are free"
    return ""


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
