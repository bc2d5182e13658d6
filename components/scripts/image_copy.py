"""Load the image that the Spark before this one holds or is receiving, streamed over the fabric and never staged on a
disk; what comes is passed on to the next Spark meanwhile. Layers that all who get it have already are left out.

stdin   JSON: image (the head's id), content (what it holds: shared/images.py), layers (its layers' digests), name (to
        give it), source (shared/upstream.py), passed_on (where it is: the next Spark copies from this one), record
apply   stdout: the image's id here, which is another one where this Docker keeps images otherwise than the head's
remove  forgets the record; the image stays until `docker image prune`
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from shared.docker import attended, docker
from shared.images import content_of, image_parts, inspected
from shared.job import run, say
from shared.progress import Count, Progress
from shared.records import remove_record, write_record
from shared.state import stack_directory
from shared.upstream import IMAGE, SOCKET, key_file, receiving, ssh_upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from contracts import ImageCopy

LOADED = re.compile(r"^Loaded image(?: ID)?: (\S+)$", re.M)
"""What `docker load --quiet` prints."""


def present(inputs: ImageCopy, names: list) -> str:
    """Id of the first of `names` that is the head's image; '' where none is."""
    for name in names:
        if content_of(name) == inputs["content"]:
            return docker("image", "inspect", "--format={{.Id}}", name)
    return ""


def shared_layers(layers: list) -> int:
    """How many of the lowest layers an image that is here has too: `docker load` doesn't read them.

    0 in containerd's image store, which reads all. Source: moby, daemon/internal/image/tarexport/load.go.
    """
    if "containerd" in docker("info", "--format={{.DriverStatus}}"):
        return 0
    here = docker("image", "ls", "--all", "--no-trunc", "--quiet").split()
    known = [image_parts(about)["layers"] for about in inspected(*sorted(set(here)))] if here else []
    return max((same_from_below(layers, one) for one in known), default=0)


def same_from_below(one: list, other: list) -> int:
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return len(list(pairs))


PATIENCE = 15
"""Seconds for the next Spark to come. It may have the image already; one that comes later gets it from Docker."""

STUCK = 60
"""Seconds in which the next Spark takes nothing, after which this one goes on alone."""

BLOCK = 1 << 20


@contextlib.contextmanager
def listening(inputs: ImageCopy) -> Iterator[socket.socket | None]:
    """Where image_server.py on this Spark asks for what comes; None where nobody will."""
    if not inputs.get("passed_on"):
        yield None
        return
    # A socket's path must be short; this folder is the login user's alone.
    os.chdir(stack_directory(inputs["record"]["stack"]))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(SOCKET)
        server.listen(1)
        server.settimeout(PATIENCE)
        try:
            yield server
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET)


def follower(server: socket.socket | None) -> tuple[socket.socket | None, int]:
    """The next Spark's connection, and how many of the lowest layers need not be sent there; (None, 0) where it does
    not come."""
    if server is None:
        return None, 0
    with contextlib.suppress(OSError), server:
        client, _ = server.accept()
        client.settimeout(STUCK)
        with client.makefile("rb") as stream:
            return client, int(stream.readline() or 0)
    return None, 0


class Sender:
    """The image as the Spark before this one sends it."""

    def __init__(self, inputs: ImageCopy) -> None:
        source = inputs["source"]
        argv = ssh_upstream(source, key_file(inputs["record"]["stack"], "image-key"))
        # The key's one command there sends this image, whatever is asked for.
        argv += ["-l", source["user"], source["address"], "save"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self.size, self.said = 0, ""
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def ask(self, without: int) -> None:
        """For the image, but for so many of its lowest layers. Until then the one before waits: who gets the image from
        here may be asking others itself."""
        assert self.process.stdin
        # It may have ended, and then says why.
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stream:
            stream.write(f"{without}\n".encode())

    def _listen(self) -> None:
        """To what it says beside the image."""
        assert self.process.stderr
        for line in self.process.stderr:
            text = line.decode(errors="replace").strip()
            if match := re.fullmatch(r"size (\d+)", text):
                self.size = int(match[1])
            elif text:
                self.said = text

    def end(self) -> int:
        """Its exit code. Nobody reads on where loading failed, as on a full disk: the sender has to notice."""
        assert self.process.stdout
        self.process.stdout.close()
        self._thread.join()
        return self.process.wait()


def pass_on(source: IO[bytes], loader: IO[bytes], after: socket.socket | None, count: Count) -> None:
    """Everything that comes, to Docker and to the next Spark; whoever of them takes no more gets no more."""
    while block := os.read(source.fileno(), BLOCK):
        count.add(len(block))
        if after is not None:
            try:
                after.sendall(block)
            except OSError:
                after = None
        try:
            loader.write(block)
        except BrokenPipeError:
            return


def load(inputs: ImageCopy, announce: Callable[[], None]) -> list:
    """What Docker calls the image that came."""
    count, without = Count(), shared_layers(inputs["layers"])
    with listening(inputs) as server:
        announce()
        sender = Sender(inputs)
        after, theirs = follower(server)
        sender.ask(without if after is None else min(without, theirs))
        argv = ["docker", "load", "--quiet"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as loader:
            assert loader.stdin
            assert sender.process.stdout
            with Progress("copying", inputs["name"], lambda: sender.size, lambda: count.value):
                pass_on(sender.process.stdout, loader.stdin, after, count)
            if after is not None:
                after.close()
            code = sender.end()
            out, error = loader.communicate()
    if code or loader.returncode:
        why = " | ".join(filter(None, [sender.said, error.decode(errors="replace").strip()]))
        sys.exit(f"{inputs['name']}: the copy failed: {why}")
    return LOADED.findall(out.decode())


def apply(inputs: ImageCopy) -> None:
    attended()
    # A name with a digest can be pulled, and not be given to an image.
    name = inputs["name"].partition("@")[0]
    with receiving(inputs["record"]["stack"], IMAGE) as announce:
        image = present(inputs, [inputs["image"], name])
        if not image:
            say(f"{name}: copying")
            image = present(inputs, load(inputs, announce))
            if not image:
                sys.exit(f"{name}: another image than {inputs['image']} arrived")
        # Without a name `docker image prune` would take it.
        docker("tag", image, name)
        write_record(inputs["record"], {"images": [image]}, of=inputs["image"])
    print(image)


def remove(inputs: ImageCopy) -> None:
    remove_record(inputs["record"])


run(apply, remove)
