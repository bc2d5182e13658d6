"""Shared by the scripts that run on a Spark: records, directories and Docker's API. Python 3.10+, no packages."""

import glob
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable

STATE = os.path.expanduser("~/.local/state/dgx-spark")
"""Holds the lease and one directory of records per stack. Source: XDG base directories, state that may be lost."""

LEASE = os.path.join(STATE, "lease.json")


def job() -> tuple:
    """(verb, input): `apply` or `remove`, and the JSON on stdin."""
    return sys.argv[1], json.load(sys.stdin)


def run(apply: Callable, remove: Callable) -> None:
    """Do what the command line asks for with what is on stdin."""
    verb, given = job()
    {"apply": apply, "remove": remove}[verb](given)


def read(path: str) -> str:
    """A small file without surrounding blanks; '' where it can't be read."""
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""


def model_folder(cache: str, repo: str) -> str:
    """Where huggingface_hub keeps a repository below HF_HOME."""
    return os.path.join(cache, "hub", f"models--{repo.replace('/', '--')}")


def held(cache: str, repo: str) -> int:
    """Bytes of a model on disk, parts of interrupted downloads included."""
    return sum(os.stat(path).st_blocks * 512 for path in glob.glob(f"{model_folder(cache, repo)}/blobs/*"))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stack_directory(stack: str) -> str:
    return os.path.join(STATE, stack.replace("/", "."))


def record_path(stack: str, kind: str) -> str:
    return os.path.join(stack_directory(stack), f"{kind}.json")


def write_record(wanted: dict, checks: dict, **more: object) -> None:
    """Say that `wanted` (stack, kind, spec, generation) is in place; written last, and whole or not at all.

    checks   what the probe must find for the record to count as intact:
             files {path: size}, lines {path: [line]}, images [id], directories [path]
    """
    path = record_path(wanted["stack"], wanted["kind"])
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    record = {"spec": wanted["spec"], "generation": wanted["generation"], "checks": checks, **more}
    write_file(path, json.dumps(record, indent=1))


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    partial = f"{path}.partial"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
    os.replace(partial, path)


def has_record(wanted: dict) -> bool:
    """Does a record of exactly this thing, in this generation, stand?"""
    try:
        with open(record_path(wanted["stack"], wanted["kind"])) as stream:
            record = json.load(stream)
    except FileNotFoundError:
        return False
    return all(record[key] == wanted[key] for key in ("spec", "generation")) and holds(record["checks"], set())


def remove_record(wanted: dict) -> None:
    """Forget a record, unless a newer one has taken its place."""
    path = record_path(wanted["stack"], wanted["kind"])
    try:
        with open(path) as stream:
            mine = json.load(stream)["generation"] == wanted["generation"]
    except FileNotFoundError:
        return
    if mine:
        os.unlink(path)


class Docker(http.client.HTTPConnection):
    """The Docker daemon of this Spark, over its socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=30)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect("/var/run/docker.sock")

    def get(self, path: str) -> object:
        """Decoded answer; None where Docker says 404."""
        self.request("GET", path)
        answer = self.getresponse()
        body = answer.read()
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise OSError(f"Docker answers {answer.status}: {body.decode()}")
        return json.loads(body)


def holds(checks: dict, images: set) -> bool:
    """Is everything that a record speaks of still there?"""

    def lines(path: str) -> set:
        try:
            with open(path) as stream:
                return {line.rstrip("\n") for line in stream}
        except FileNotFoundError:
            return set()

    def size(path: str) -> int:
        try:
            return os.stat(path).st_size
        except OSError:
            return -1

    return (
        all(size(path) == wanted for path, wanted in checks.get("files", {}).items())
        and all(set(wanted) <= lines(path) for path, wanted in checks.get("lines", {}).items())
        and all(image in images for image in checks.get("images", []))
        and all(os.path.isdir(path) for path in checks.get("directories", []))
    )
