"""ssh between Pulumi's Docker provider and a Spark, during `./spark adopt`: a container that is as it is wanted counts
as made.

Pulumi can't import such a container: the provider reads back no environment and no files, and would replace it. So
nothing is imported. The provider makes all that the state does not know, as ever, and this program, between it and
`docker system dial-stdio`, answers two of its requests in Docker's place: to make a container that is there, with that
one's id, and to put files into it, which it has. All else goes through, the start of what runs included, and so the
state is what Pulumi itself has written of a container that it has made.

What is as it is wanted is found before (scripts/clear.py, asked by resources/clearing.py), and noted in a folder.

argv    folder, ssh, its words
stdin   HTTP requests of one connection; stdout: Docker's answers
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

VARIABLE = "DGX_SPARK_ADOPT"
"""Environment: the folder, of such a run."""

ALIAS = "HostKeyAlias="
"""Before a Spark's name in the words of each ssh (remote/openssh.py)."""

CREATE = re.compile(r"(/v[\d.]+)?/containers/create")
ARCHIVE = re.compile(r"(/v[\d.]+)?/containers/(?P<id>[0-9a-f]+)/archive")
"""Source: Docker Engine API, ContainerCreate and PutContainerArchive."""


def folder() -> Path | None:
    """None: this run adopts nothing."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def note(base: Path, node: str, name: str, found: Any) -> None:
    """What clear.py has found of a container: its id where it stays, else how it differs."""
    (base / "found" / node).mkdir(parents=True, exist_ok=True)
    (base / "found" / node / name).write_text(json.dumps(found))


def noted(base: Path) -> Iterator[tuple[str, str, Any]]:
    """(node, name, what was found) of each container that was there."""
    for path in sorted((base / "found").glob("*/*")):
        yield path.parent.name, path.name, json.loads(path.read_text())


def environment(base: Path, path: str, python: str) -> dict[str, str]:
    """Variables of a run that adopts. `path`: PATH, in which our ssh will come first."""
    real = next((f"{one}/ssh" for one in path.split(os.pathsep) if os.access(f"{one}/ssh", os.X_OK)), "ssh")
    ours = base / "bin" / "ssh"
    ours.parent.mkdir()
    words = shlex.join([python, __file__, str(base), real])
    ours.write_text(
        f'#!/bin/sh\ncase "$*" in *"docker system dial-stdio"*) exec {words} "$@" ;; esac\n'
        f'exec {shlex.quote(real)} "$@"\n'
    )
    ours.chmod(0o700)
    return {VARIABLE: str(base), "PATH": f"{ours.parent}{os.pathsep}{path}"}


def answer(request: str, kept: dict[str, str]) -> bytes | None:
    """What is said in Docker's place; None: it is asked. `request`: the first line; `kept`: name → id."""
    method, target, *_ = request.split(" ")
    url = urlsplit(target)
    if method == "POST" and CREATE.fullmatch(url.path):
        id_ = kept.get(parse_qs(url.query).get("name", [""])[0])
        return _answered("201 Created", {"Id": id_, "Warnings": []}) if id_ else None
    found = ARCHIVE.fullmatch(url.path) if method == "PUT" else None
    return _answered("200 OK", None) if found and found["id"] in kept.values() else None


def _answered(status: str, body: object) -> bytes:
    text = json.dumps(body).encode() if body else b""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def head(stream: IO[bytes]) -> list[bytes]:
    """The lines of a request up to the empty one, which is the last; [] at the end."""
    lines: list[bytes] = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            return lines
    return []


def body(stream: IO[bytes], headers: Iterable[bytes]) -> bytes:
    """As it came, chunked or not."""
    named = {key.strip().lower(): value.strip().lower() for key, _, value in (line.partition(b":") for line in headers)}
    if named.get(b"transfer-encoding") == b"chunked":
        return b"".join(_chunks(stream))
    return stream.read(int(named.get(b"content-length", b"0")))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Source: RFC 9112, 7.1; Go's client sends no trailers."""
    while True:
        size = stream.readline()
        length = int(size.split(b";")[0], 16)
        yield size + stream.read(length + len(b"\r\n"))
        if not length:
            return


def relay(requests: IO[bytes], docker: IO[bytes], answers: IO[bytes], base: Path, node: str) -> None:
    """Until there are no more requests. The next comes only when the last was answered (HTTP/1.1 of Go's client), so
    that nobody else writes to `answers` when we do."""
    while lines := head(requests):
        content = body(requests, lines[1:-1])
        kept = {name: str(found["id"]) for where, name, found in noted(base) if where == node and found["id"]}
        ours = answer(lines[0].decode(), kept)
        target = docker if ours is None else answers
        target.write(b"".join([*lines, content]) if ours is None else ours)
        target.flush()


def node_of(words: Sequence[str]) -> str:
    """The Spark that ssh's words lead to."""
    return next((word.partition(ALIAS)[2] for word in words if ALIAS in word), "")


def main(base: str, *words: str) -> None:
    with subprocess.Popen(words, stdin=subprocess.PIPE) as ssh:
        assert ssh.stdin
        # The provider must see the end of a connection that broke, while the next request is waited for.
        threading.Thread(target=lambda: os._exit(ssh.wait()), daemon=True).start()
        relay(sys.stdin.buffer, ssh.stdin, sys.stdout.buffer, Path(base), node_of(words))


if __name__ == "__main__":
    main(*sys.argv[1:])
