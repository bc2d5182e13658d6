"""Make sure that an image holds what the engine needs beside itself, in a derived image where it does not.

stdin   JSON: image (id), name, add {"ray": version, "sshd": Debian package}, record
apply   stdout: JSON {"image": id to run, "base": id, "ray": its version or ''}
remove  forgets the record; a derived image stays, like pulled ones do, until `docker image prune`
"""

import json
import subprocess
import sys

from common import remove_record, run, say, write_record

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

BUILD_LIMIT = 1800


def docker(*argv: str, stdin: str = "", limit: int = 300) -> subprocess.CompletedProcess:
    return subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True, timeout=limit)


def look(image: str, thing: str) -> str:
    """'' where the image does not have it."""
    program, *words = FOUND[thing]
    done = docker("run", "--rm", "--network=none", f"--entrypoint={program}", image, *words)
    # 125 to 127: Docker could not run the program at all.
    if done.returncode >= 125:
        sys.exit(f"can't run {program} in {image}: {done.stderr.strip()}")
    return done.stdout.strip() if done.returncode == 0 else ""


def derive(given: dict, missing: dict) -> str:
    """Image id with what was missing: layers on the base. A second build of the same is found in Docker's cache."""
    words = ", ".join(f"{thing} ({what})" for thing, what in missing.items())
    say(f"{given['name']} lacks {words}: adding")
    lines = [f"FROM {given['image']}"]
    lines += [f"RUN {INSTALL[thing].format(what=what)}" for thing, what in missing.items()]
    lines.append(f"LABEL dgx-spark.base={given['image']}")
    tag = f"dgx-spark/{'-'.join(['with', *missing])}:{given['image'].split(':')[-1][:12]}-{'-'.join(missing.values())}"
    done = docker("build", "--network=host", "--tag", tag, "-", stdin="\n".join(lines), limit=BUILD_LIMIT)
    if done.returncode:
        sys.exit(f"can't add {words} to {given['name']}:\n{(done.stdout + done.stderr)[-2000:]}")
    return docker("image", "inspect", "--format={{.Id}}", tag).stdout.strip()


def apply(given: dict) -> None:
    image = given["image"]
    found = {thing: look(image, thing) for thing in given["add"]}
    missing = {thing: what for thing, what in given["add"].items() if not found[thing]}
    if missing:
        image = derive(given, missing)
        found |= {thing: look(image, thing) for thing in missing}
    write_record(given["record"], {"images": [image]})
    print(json.dumps({"image": image, "base": given["image"], "ray": found.get("ray", "")}))


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
