"""Making an image, which takes from seconds to hours, and saying meanwhile what it is at."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

from .docker import docker
from .progress import Reports, duration
from .proxies import proxies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

DOCKERS_OWN = re.compile(r"PATH|HOME|TMPDIR|(?:DOCKER|BUILDX|BUILDKIT|LD)_.*")
"""Variables that would mean something to Docker's own program."""

KEPT = 3000
"""Characters of what a failed build has said last, which are shown; so no more lines than that are kept."""

SHOWN = 120
"""Characters of an instruction."""

TELLING = 4
"""Characters from which on an argument's value is taken for one that is not to be shown."""

PART = re.compile(r"#([1-9]\d*) (.+)")
"""What BuildKit says of one of a build's parts, which it counts; at first the part's name, which it repeats when it
comes back to it. #0 is itself. Source: moby/buildkit, util/progress/progressui/printer.go."""

OVER, ELSEWHERE = re.compile(r"(?:DONE|CACHED|ERROR|CANCELED)\b"), "..."
"""What it says when a part has ended, and when it goes over to another one."""

STEP = re.compile(r"Step (\d+/\d+) : (.+)")
"""How the classic builder begins a part."""


class Parts:
    """Which part of a build is under way, by what either builder prints."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._since: dict[str, float] = {}
        """Of those under way; the one that spoke last is the last one."""

        self.now: tuple[str, float] | None = None
        """Name, and when it began."""

    def take(self, line: str, when: float) -> None:
        """`when`: seconds, of any clock."""
        if step := STEP.match(line):
            self._names, self._since = {"": f"[{step[1]}] {step[2]}"}, {"": when}
        elif said := PART.match(line):
            number, text = said.groups()
            if OVER.match(text):
                self._since.pop(number, None)
            elif text != ELSEWHERE:
                self._names.setdefault(number, text)
                self._since[number] = self._since.pop(number, when)
        last = next(reversed(self._since), None)
        self.now = None if last is None else (self._names[last], self._since[last])


def told(name: str, seconds: float, arguments: Mapping[str, str]) -> str:
    """A part of a build, and how long it has been under way; without the values of arguments, which BuildKit fills in
    and which may be secrets."""
    for variable, value in sorted(arguments.items(), key=lambda one: -len(one[1])):
        if len(value) >= TELLING:
            name = name.replace(value, f"${{{variable}}}")
    place, bracket, words = name.partition("] ")
    where, what = (f" {place}]", words) if bracket and place.startswith("[") else ("", name)
    return f"building{where}, {duration(seconds)}: {what[:SHOWN]}"


def build(
    dockerfile: str, tag: str, *, limit: int, arguments: Mapping[str, str] | None = None, buildkit: bool = False
) -> str:
    """Id of the image that a Dockerfile without files beside it makes; ends the script with the build's last words.

    limit      seconds
    arguments  the Dockerfile's; by environment, because everybody on the Spark can read a process's command line.
               Beside them, the Spark's own proxies
    buildkit   it needs BuildKit; otherwise whatever builder this Docker has will do
    """
    # Docker knows these without a Dockerfile's doing, and keeps them out of the image and its history.
    given = {**proxies(), **(arguments or {})}
    own = {name for name in given if DOCKERS_OWN.fullmatch(name)}
    words = [f"--build-arg={name}" + (f"={given[name]}" if name in own else "") for name in sorted(given)]
    # No builder of the user's, which may not see the images here. Nothing of a build's stays in ~/.docker, or in /tmp,
    # where buildx leaves the Dockerfile. No attestation, whose time would make each build another image.
    # Source: docs.docker.com, build variables.
    more = {"BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "BUILDKIT_PROGRESS": "plain"}
    more |= {"DOCKER_BUILDKIT": "1"} if buildkit else {}
    more |= {name: value for name, value in given.items() if name not in own}
    argv = ["docker", "build", "--network=host", "--tag", tag, *words, "-"]
    parts, said = Parts(), collections.deque[str](maxlen=KEPT)

    def listen(stream: IO[str]) -> None:
        for line in stream:
            said.append(line)
            parts.take(line, time.monotonic())

    def at() -> str:
        now = parts.now
        return told(now[0], time.monotonic() - now[1], given) if now else ""

    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **more, "BUILDX_CONFIG": folder, "TMPDIR": folder}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
        assert process.stdin
        # What Docker has started may outlive it, and would be waited for.
        listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
        listener.start()
        with Reports(at):
            # It may have ended, and then says why.
            with contextlib.suppress(BrokenPipeError), process.stdin as stream:
                stream.write(dockerfile)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                sys.exit(f"the build of {tag} was not done within {limit} s")
        listener.join()
    if code:
        sys.exit(f"the build of {tag} failed:\n{''.join(said)[-KEPT:]}")
    return docker("image", "inspect", "--format={{.Id}}", tag)
