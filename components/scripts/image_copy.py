"""Load the image that the head holds, streamed over the fabric and never staged on a disk.

stdin   JSON: image (id), name (tag to give it), source (address, user, port, host_key), record
apply   stdout: the image's id
remove  forgets the record; the image stays until `docker image prune`
"""

import subprocess
import sys

from common import from_head, key_file, remove_record, run, say, write_record


def present(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0


def load(given: dict) -> None:
    source = given["source"]
    key = key_file(given["record"]["stack"], "image-key")
    # The key's one command on the head is `docker save` of this image, whatever is asked for.
    argv = [*from_head(source, key), f"{source['user']}@{source['address']}", "save"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        loaded = subprocess.run(["docker", "load", "--quiet"], stdin=sender.stdout, capture_output=True, text=True)
        said = sender.stderr.read().decode().strip()
    if sender.returncode or loaded.returncode:
        sys.exit(f"{given['name']}: the copy from the head failed: {said or loaded.stderr.strip()}")


def apply(given: dict) -> None:
    if not present(given["image"]):
        say(f"{given['name']}: copying from the head")
        load(given)
        if not present(given["image"]):
            sys.exit(f"{given['name']}: another image than {given['image']} arrived")
    # Without a name `docker image prune` would take it.
    tag = given["name"].partition("@")[0]
    subprocess.run(["docker", "tag", given["image"], tag], check=True)
    write_record(given["record"], {"images": [given["image"]]})
    print(given["image"])


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
