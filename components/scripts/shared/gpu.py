"""The GPU at one moment."""

from __future__ import annotations

import subprocess


TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Gpu


GPU = {"busy": "utilization.gpu", "temperature": "temperature.gpu", "power": "power.draw", "clock": "clocks.sm"}
"""Per cent, degrees Celsius, watts, MHz. Source: nvidia-smi --help-query-gpu."""


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def gpu_now() -> Gpu:
    """The GPU as it is at this moment, by the keys of GPU; None for what the driver does not print."""
    argv = ["nvidia-smi", f"--query-gpu={','.join(GPU.values())}", "--format=csv,noheader,nounits"]
    try:
        line = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        line = ""
    values = [number(word) for word in line.split(", ")]
    busy, temperature, power, clock = values if len(values) == len(GPU) else [None] * len(GPU)
    return {"busy": busy, "temperature": temperature, "power": power, "clock": clock}
