"""Images: what is in one, and making one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile

from .docker import docker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def image_parts(about: dict) -> dict:
    """What an image is made of, from what `docker image inspect` says, in words that all of Docker's stores share:
    layers [digest of what is in one], config (digest of what a container gets beside them)."""
    config = about.get("Config") or {}
    parts = [config.get(key) or None for key in ("Env", "Entrypoint", "Cmd", "WorkingDir", "User")]
    digest = hashlib.sha256(json.dumps([*parts, about.get("Architecture")]).encode()).hexdigest()
    return {"layers": (about.get("RootFS") or {}).get("Layers") or [], "config": digest}


def inspected(*images: str) -> list[dict]:
    """What Docker says of those that are here."""
    done = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, text=True)
    found: list[dict] = json.loads(done.stdout or "[]")
    return found


def layers_of(image: str) -> list[str]:
    """Digests of its layers, the lowest first; none where it is not here."""
    return [layer for about in inspected(image) for layer in image_parts(about)["layers"]]


def content_of(image: str) -> str:
    """Digest of an image's parts; '' where it is not here.

    Equal images have equal contents whatever keeps them, and not always equal ids: an id is the config's digest with
    Docker's storage drivers, the manifest's in containerd's image store, which new installations of Docker 29 have.
    """
    for about in inspected(image):
        parts = image_parts(about)
        return hashlib.sha256("\n".join([*parts["layers"], parts["config"]]).encode()).hexdigest()
    return ""


DOCKERS_OWN = re.compile(r"PATH|HOME|TMPDIR|(?:DOCKER|BUILDX|BUILDKIT|LD)_.*")
"""Variables that would mean something to Docker's own program."""


def build(
    dockerfile: str, tag: str, *, limit: int, arguments: Mapping[str, str] | None = None, buildkit: bool = False
) -> str:
    """Id of the image that a Dockerfile without files beside it makes; ends the script with the build's last words.

    arguments  the Dockerfile's; by environment, because everybody on the Spark can read a process's command line
    buildkit   it needs BuildKit; otherwise whatever builder this Docker has will do
    """
    given = arguments or {}
    own = {name for name in given if DOCKERS_OWN.fullmatch(name)}
    words = [f"--build-arg={name}" + (f"={given[name]}" if name in own else "") for name in sorted(given)]
    # No builder of the user's, which may not see the images here. Nothing of a build's stays in ~/.docker, or in /tmp,
    # where buildx leaves the Dockerfile. No attestation, whose time would make each build another image.
    # Source: docs.docker.com, build variables.
    more = {"BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    more |= {"DOCKER_BUILDKIT": "1"} if buildkit else {}
    more |= {name: value for name, value in given.items() if name not in own}
    argv = ["docker", "build", "--network=host", "--tag", tag, *words, "-"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **more, "BUILDX_CONFIG": folder, "TMPDIR": folder}
        try:
            done = subprocess.run(
                argv, input=dockerfile, capture_output=True, text=True, timeout=limit, env=environment
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"the build of {tag} was not done within {limit} s")
    if done.returncode:
        sys.exit(f"the build of {tag} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return docker("image", "inspect", "--format={{.Id}}", tag)
