"""How vLLM 0.32 tells that it has failed, recorded from the genuine one (simulator/genuine/)."""

import os
import sys
import time
import traceback


def refused(error: Exception) -> None:
    """By its configuration, in pydantic's words."""
    _tell("refused.txt", error=str(error))


def failed(error: Exception) -> None:
    """On a rank, before it serves: the reason, and 200 lines of those who waited for that rank."""
    for line in ("WorkerProc failed to start.", *"".join(traceback.format_exception(error)).splitlines()):
        print(f"(Worker pid={os.getpid()}) ERROR {now()} [multiproc_executor.py:953] {line}", flush=True)
    _tell("failed.txt", time=now())


def now() -> str:
    return time.strftime("%m-%d %H:%M:%S")


def _tell(record: str, **known: str) -> None:
    """Log lines, which name their process, go to standard output, and tracebacks to standard error."""
    with open(os.path.join(os.path.dirname(__file__), record)) as stream:
        text = stream.read()
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    for line in text.splitlines():
        print(line, file=sys.stdout if line.startswith("(") else sys.stderr, flush=True)
