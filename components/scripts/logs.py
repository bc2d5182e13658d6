"""Logs of a stack's containers on this Spark, merged, until the caller goes away.

stdin   JSON: stack, components [label of a container; none: all], lines (of each, to begin with), follow, since (as
        docker logs has it, or '')
stdout  JSON lines: [component, text]
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterable, Sequence

from shared.caller import gone
from shared.docker import docker
from shared.job import job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Logs

LOCK = threading.Lock()


def tell(component: str, stream: Iterable[str]) -> None:
    with contextlib.suppress(BrokenPipeError):
        for line in stream:
            with LOCK:
                print(json.dumps([component, line.rstrip("\n")]), flush=True)


def end_with_the_caller(processes: Sequence[subprocess.Popen[str]]) -> None:
    gone()
    for process in processes:
        process.kill()


def main() -> None:
    inputs: Logs = job()[1]
    shown = '{{.ID}} {{.Label "dgx-spark.component"}}'
    found = docker("ps", "--all", "--filter", f"label=dgx-spark.stack={inputs['stack']}", "--format", shown)
    processes, threads = [], []
    for line in found.splitlines():
        container, component = line.split()
        if inputs["components"] and component not in inputs["components"]:
            continue
        argv = ["docker", "logs", f"--tail={inputs['lines']}", *(["--follow"] if inputs["follow"] else [])]
        argv += [f"--since={inputs['since']}"] if inputs["since"] else []
        process = subprocess.Popen([*argv, container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout
        processes.append(process)
        threads.append(threading.Thread(target=tell, args=(component, process.stdout)))
        threads[-1].start()
    threading.Thread(target=end_with_the_caller, args=(processes,), daemon=True).start()
    for thread in threads:
        thread.join()


main()
