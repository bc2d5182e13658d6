"""What a GPU shows of its work: nvidia-smi's stand-in on the Spark looks for it (simulator/bin/nvidia-smi)."""

FILE = "/dev/shm/spark-gpu-busy"
"""Seen by the Spark where the container shares its IPC namespace."""


def work() -> None:
    with open(FILE, "w"):
        pass
