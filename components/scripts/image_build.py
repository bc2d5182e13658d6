"""Build the engine's image on this Spark.

stdin   JSON: dockerfile (text, needs no files beside it), args {name: value}, tag, limit (seconds), record
apply   stdout: the image's id
remove  forgets the record; the image stays until `docker image prune`
"""

import os
import shutil
import subprocess
import sys

from common import remove_record, run, say, write_record


SETTINGS = os.path.expanduser("~/.docker")
"""Of Docker's command line; may hold the login to a registry."""


def apply(given: dict) -> None:
    words = [f"--build-arg={name}={value}" for name, value in sorted(given["args"].items())]
    argv = ["docker", "build", "--network=host", "--tag", given["tag"], *words, "-"]
    say(f"building {given['tag']}; this takes from minutes to hours")
    had_settings = os.path.exists(SETTINGS)
    done = subprocess.run(
        argv,
        input=given["dockerfile"],
        capture_output=True,
        text=True,
        timeout=given["limit"],
        # Stages that the result does not need are left out, and caches are mounted.
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )
    if not had_settings:
        # The build's own id, of no use to anybody.
        shutil.rmtree(SETTINGS, ignore_errors=True)
    if done.returncode:
        sys.exit(f"the build of {given['tag']} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    shown = ["docker", "image", "inspect", "--format={{.Id}}", given["tag"]]
    image = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
    write_record(given["record"], {"images": [image]})
    print(image)


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
