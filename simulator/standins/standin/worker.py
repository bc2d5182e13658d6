"""One rank: joins the communicator and reads its weights; then answers each step."""

import glob
import os
import re
import time

from standin import fabric
from standin.knobs import Knobs


PLACES = {
    "vllm": lambda: os.path.join(os.environ.get("VLLM_CACHE_ROOT", os.path.expanduser("~/.cache/vllm")), "graphs"),
    "sglang": lambda: os.path.join(os.environ.get("SGLANG_CACHE_DIR", os.path.expanduser("~/.cache/sglang")), "graphs"),
    "trtllm": lambda: os.environ.get("TLLM_AUTOTUNER_CACHE_PATH", ""),
}
"""Where each engine keeps what it compiled; '': nowhere."""


def compile_once(family: str, world: int, knobs: Knobs, log) -> None:
    """What was compiled for as many ranks is loaded the next time; where the place is damaged, the engine ends, as some
    versions do. Source: vllm, compilation/backends.py, whose directories are named by a hash of the configuration."""
    path, graph, found = PLACES[family](), f"{family} for {world}", []
    if path and os.path.exists(path):
        with open(path) as stream:
            found = stream.read().splitlines()
        if not all(re.fullmatch(f"{family} for [0-9]+", line) for line in found):
            raise RuntimeError(f"{path}: cannot load the compiled graph")
    if graph in found:
        log("Directly load the compiled graph(s) from the cache")
        return
    time.sleep(knobs.compile_seconds)
    if path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as stream:
            stream.write(f"{graph}\n")
    log(f"torch.compile took {knobs.compile_seconds:.2f} s in total")


def load(rank: int, world: int, model: str, knobs: Knobs, utilization: float, log, *, family: str) -> None:
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
    compile_once(family, world, knobs, log)
    while knobs.never_ready:
        time.sleep(1)
    log(f"Loading weights took {knobs.load_seconds:.2f} seconds")
