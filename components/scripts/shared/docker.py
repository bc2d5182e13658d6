"""The Docker daemon of this Spark, and its containers."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


PATIENCE = 30
"""Seconds for one answer of Docker's."""

TRIES = 3
"""Questions without an answer, one after the other, until Docker counts as hanging."""

HANGS = f"Docker does not answer within {PATIENCE} s: sudo systemctl restart docker on this Spark"


def docker(*argv: str) -> str:
    """Output of a docker command; ends the script with its words where it fails."""
    done = subprocess.run(["docker", *argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docker {argv[0]} {argv[1]}: {done.stderr.strip()}")
    return done.stdout.strip()


class Docker(http.client.HTTPConnection):
    """The Docker daemon of this Spark, over its socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=PATIENCE)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect("/var/run/docker.sock")

    def get(self, path: str) -> Any:
        """Decoded answer; None where Docker says 404."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        try:
            self.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = self.getresponse()
            said = answer.read()
        except TimeoutError:
            raise TimeoutError(HANGS) from None
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise OSError(f"Docker answers {answer.status}: {said.decode()}")
        return json.loads(said or "null")


def containers(stack: str, *labels: str) -> list[dict[str, Any]]:
    """The stack's containers as Docker's API lists them, running or not; `labels`: KEY=VALUE that they also carry."""
    wanted = json.dumps({"label": [f"dgx-spark.stack={stack}", *labels]})
    found: list[dict[str, Any]] = Docker().get(f"/containers/json?all=1&filters={urllib.parse.quote(wanted)}")
    return found


def attended() -> None:
    """From now on this script ends, with all that it has started, when Docker hangs: its own client waits for ever."""
    threading.Thread(target=_attend, daemon=True).start()


def _attend() -> None:
    silent = 0
    while silent < TRIES:
        time.sleep(PATIENCE / 3)
        silent = silent + 1 if hangs() else 0
    print(HANGS, file=sys.stderr, flush=True)
    # At once, and nothing between that and the end: whoever waits for one of them would go on.
    for pid in tuple(_below(os.getpid())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(1)


def hangs() -> bool:
    """One that is being restarted refuses, which is an answer."""
    try:
        Docker().get("/version")
    except TimeoutError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return False


def _below(pid: int) -> Iterator[int]:
    """Every process that this one has started, and theirs."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as stream:
                for child in map(int, stream.read().split()):
                    yield from (child, *_below(child))


RANKS = ("server", "ray-head", "ray-worker")
"""Labels of an engine's containers, which answer what they have accepted before they end."""

GRACE, OTHERS = "60", "10"
"""Seconds between a container's SIGTERM and SIGKILL, as plan/engines/common.py and resources/extras.py have them."""


def remove_container(id_: str, labels: dict[str, str]) -> None:
    """With its nameless volumes; ends the script with Docker's words where it stays."""
    grace = GRACE if labels.get("dgx-spark.component") in RANKS else OTHERS
    # A service's container, and one that somebody else removes, may go by itself meanwhile.
    subprocess.run(["docker", "stop", "--time", grace, id_], capture_output=True)
    done = subprocess.run(["docker", "rm", "--force", "--volumes", id_], capture_output=True, text=True)
    if done.returncode and not any(words in done.stderr for words in ("No such container", "already in progress")):
        sys.exit(f"docker rm {id_[:12]}: {done.stderr.strip()}")


def file_in(id_: str, path: str) -> bytes | None:
    """Content of a file in a container, running or not; None where it has none."""
    done = subprocess.run(["docker", "cp", f"{id_}:{path}", "-"], capture_output=True)
    if done.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        stream = tar.extractfile(tar.getmembers()[0])
        return stream.read() if stream else None


def name_of(container: dict) -> str:
    """Of a container as Docker lists it; one that is being removed has none any more."""
    return str(container["Names"][0].lstrip("/") if container.get("Names") else container["Id"][:12])


def labels_of(container: dict) -> dict:
    return container.get("Labels") or {}
