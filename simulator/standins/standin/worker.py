"""One rank: joins the communicator and reads its weights; then answers each step."""

import glob
import os
import time

from standin import fabric
from standin.knobs import Knobs


def load(rank: int, world: int, model: str, knobs: Knobs, utilization: float, log) -> None:
    """Everything that a rank does before it can serve. Raises what the real one raises."""
    if not os.path.exists("/usr/bin/nvidia-smi"):
        raise RuntimeError("Failed to infer device type: no GPU in this container")
    base = os.environ.get("TIKTOKEN_ENCODINGS_BASE", "/nowhere")
    if "gpt-oss" in model and not os.path.exists(os.path.join(base, "o200k_base.tiktoken")):
        raise RuntimeError("openai_harmony.HarmonyError: error downloading or loading vocab file")
    if world > 1:
        fabric.connect()
    wanted = utilization * 121.69
    if knobs.free_gib < wanted:
        raise ValueError(
            f"Free memory on device cuda:0 ({knobs.free_gib}/121.69 GiB) on startup is less than desired GPU memory "
            f"utilization ({utilization}, {wanted:.2f} GiB). Decrease GPU memory utilization or reduce GPU memory "
            "used by other processes."
        )
    shards = sorted(glob.glob(os.path.join(model, "*.safetensors")))
    if not shards:
        raise RuntimeError(f"Cannot find any model weights with `{model}`")
    for done, shard in enumerate(shards, 1):
        with open(shard, "rb") as stream:
            while stream.read(1 << 22):
                pass
        time.sleep(knobs.load_seconds / len(shards))
        log(f"Loading safetensors checkpoint shards: {100 * done // len(shards)}% Completed | {done}/{len(shards)}")
        if knobs.crash and knobs.crash_model in model:
            raise RuntimeError(knobs.crash)
    while knobs.never_ready:
        time.sleep(1)
    log(f"Loading weights took {knobs.load_seconds:.2f} seconds")
