"""Make sure that an image holds what the engine needs beside itself, in a derived image where it does not.

stdin   JSON: image (id), name, add {"ray": version, "sshd": Debian package}, record
apply   stdout: JSON {"image": id to run, "base": id, "content", "base_content": what they hold (shared/images.py),
        "layers": of the image to run, "ray": its version or ''}
remove  forgets the record; a derived image stays, like pulled ones do, until `docker image prune`
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator

from shared.building import build
from shared.docker import attended, docker
from shared.images import content_of, layers_of
from shared.job import run, say
from shared.records import remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import FoundImage, Image

INSTALL = {
    # The dashboard needs the [default] extra.
    "ray": "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir 'ray[default]=={what}'",
    # Host keys made in the image would be everybody's; ours come with the container (inside/mpi.py).
    "sshd": "apt-get update && apt-get install -y --no-install-recommends {what} && rm -rf /var/lib/apt/lists/* "
    "/etc/ssh/ssh_host_*",
}
FOUND = {
    "ray": ("python3", "-c", "import ray; print(ray.__version__)"),
    "sshd": ("sh", "-c", "test -x /usr/sbin/sshd && command -v ssh"),
}
"""Program in the image that tells whether it is there: exit code 0, and its version."""

LOOK_LIMIT, BUILD_LIMIT = 300, 1800
"""Seconds."""


def look(image: str, thing: str) -> str:
    """'' where the image does not have it."""
    program, *words = FOUND[thing]
    argv = ["docker", "run", "--rm", "--network=none", f"--entrypoint={program}", image, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LOOK_LIMIT)
    # 125 to 127: Docker could not run the program at all.
    if done.returncode >= 125:
        sys.exit(f"can't run {program} in {image}: {done.stderr.strip()}")
    return done.stdout.strip() if done.returncode == 0 else ""


def derive(inputs: Image, missing: dict) -> str:
    """Image id with what was missing: layers on the base. A second build of the same is found in Docker's cache."""
    words = ", ".join(f"{thing} ({what})" for thing, what in missing.items())
    say(f"{inputs['name']} lacks {words}: adding")
    short = inputs["image"].split(":")[-1][:12]
    with named(inputs["image"], f"dgx-spark/base:{short}") as base:
        lines = [f"FROM {base}"]
        lines += [f"RUN {INSTALL[thing].format(what=what)}" for thing, what in missing.items()]
        lines.append(f"LABEL dgx-spark.base={inputs['image']}")
        tag = f"dgx-spark/{'-'.join(['with', *missing])}:{short}-{'-'.join(missing.values())}"
        return build("\n".join(lines), tag, limit=BUILD_LIMIT)


@contextlib.contextmanager
def named(image: str, tag: str) -> Iterator:
    """Gives an image a name for a while: BuildKit looks for `FROM` an id at a registry, whatever is here.

    The name stays where it is the only one, because the image would go with it.
    Source: moby, builder/builder-next/adapters/containerimage/pull.go.
    """
    docker("tag", image, tag)
    try:
        yield tag
    finally:
        (about,) = json.loads(docker("image", "inspect", image))
        names = [*(about.get("RepoTags") or []), *(about.get("RepoDigests") or [])]
        if any(re.split("[:@]", name)[0] != tag.split(":")[0] for name in names):
            docker("image", "rm", tag)


def apply(inputs: Image) -> None:
    attended()
    base = image = inputs["image"]
    found = {thing: look(image, thing) for thing in inputs["add"]}
    missing = {thing: what for thing, what in inputs["add"].items() if not found[thing]}
    if missing:
        image = derive(inputs, missing)
        found |= {thing: look(image, thing) for thing in missing}
    write_record(inputs["record"], {"images": [image]})
    answer: FoundImage = {
        "image": image,
        "base": base,
        "content": content_of(image),
        "layers": layers_of(image),
        "base_content": content_of(base),
        "ray": found.get("ray", ""),
    }
    print(json.dumps(answer))


def remove(inputs: Image) -> None:
    remove_record(inputs["record"])


run(apply, remove)
