"""The Docker daemon of this Spark, and its containers."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import urllib.parse


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def docker(*argv: str) -> str:
    """Output of a docker command; ends the script with its words where it fails."""
    done = subprocess.run(["docker", *argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docker {argv[0]} {argv[1]}: {done.stderr.strip()}")
    return done.stdout.strip()


class Docker(http.client.HTTPConnection):
    """The Docker daemon of this Spark, over its socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=30)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect("/var/run/docker.sock")

    def get(self, path: str) -> Any:
        """Decoded answer; None where Docker says 404."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        self.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self.getresponse()
        said = answer.read()
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


GRACE = "30"
"""Seconds between a container's SIGTERM and SIGKILL."""


def remove_container(id_: str) -> None:
    """With its nameless volumes; ends the script with Docker's words where it stays."""
    # A service's container, and one that somebody else removes, may go by itself meanwhile.
    subprocess.run(["docker", "stop", "--time", GRACE, id_], capture_output=True)
    done = subprocess.run(["docker", "rm", "--force", "--volumes", id_], capture_output=True, text=True)
    if done.returncode and not any(words in done.stderr for words in ("No such container", "already in progress")):
        sys.exit(f"docker rm {id_[:12]}: {done.stderr.strip()}")


def name_of(container: dict) -> str:
    """Of a container as Docker lists it; one that is being removed has none any more."""
    return str(container["Names"][0].lstrip("/") if container.get("Names") else container["Id"][:12])


def labels_of(container: dict) -> dict:
    return container.get("Labels") or {}
