"""Make sure that an image holds Ray, adding it in a derived image where it does not.

stdin   JSON: image (id), name, ray (version to add), record, stack
apply   stdout: JSON {"image": id to run, "base": id, "ray": its version}
remove  forgets the record; a derived image stays, like pulled ones do, until `docker image prune`
"""

import json
import subprocess
import sys

from common import remove_record, run, say, write_record

DOCKERFILE = """FROM {base}
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir 'ray[default]=={version}'
LABEL dgx-spark.base={base} dgx-spark.ray={version}
"""
"""The dashboard needs the [default] extra."""

ASK = "import ray; print(ray.__version__)"
BUILD_LIMIT = 1800


def docker(*argv: str, stdin: str = "", limit: int = 300) -> subprocess.CompletedProcess:
    return subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True, timeout=limit)


def ray_version(image: str) -> str:
    """'' where the image has no Ray."""
    done = docker("run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", ASK)
    if done.returncode and "No module named 'ray'" not in done.stderr:
        sys.exit(f"can't run python3 in {image}: {done.stderr.strip()}")
    return done.stdout.strip() if done.returncode == 0 else ""


def derive(given: dict) -> str:
    """Image id with Ray. One layer on the base; a second build of the same is found in Docker's cache."""
    version = given["ray"]
    say(f"{given['name']} has no Ray: adding {version}")
    dockerfile = DOCKERFILE.format(base=given["image"], version=version)
    tag = f"dgx-spark/with-ray:{given['image'].split(':')[-1][:12]}-{version}"
    done = docker("build", "--network=host", "--tag", tag, "-", stdin=dockerfile, limit=BUILD_LIMIT)
    if done.returncode:
        sys.exit(f"pip can't install ray {version} into {given['name']}:\n{(done.stdout + done.stderr)[-2000:]}")
    return docker("image", "inspect", "--format={{.Id}}", tag).stdout.strip()


def apply(given: dict) -> None:
    run, version = given["image"], ray_version(given["image"])
    if not version:
        run = derive(given)
        version = ray_version(run)
    write_record(given["record"], {"images": [run]})
    print(json.dumps({"image": run, "base": given["image"], "ray": version}))


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
