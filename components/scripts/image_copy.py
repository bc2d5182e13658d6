"""Load the image that the head holds, streamed over the fabric and never staged on a disk.

stdin   JSON: image (the head's id), content (what it holds: common.content_of), name (to give it), source
        (address, user, port, host_key), record
apply   stdout: the image's id here, which is another one where this Docker keeps images otherwise than the head's
remove  forgets the record; the image stays until `docker image prune`
"""

from __future__ import annotations

import re
import subprocess
import sys

from common import content_of, docker, from_head, key_file, remove_record, run, say, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import ImageCopy

LOADED = re.compile(r"^Loaded image(?: ID)?: (\S+)$", re.M)
"""What `docker load --quiet` prints."""


def present(given: ImageCopy, names: list) -> str:
    """Id of the first of `names` that is the head's image; '' where none is."""
    for name in names:
        if content_of(name) == given["content"]:
            return docker("image", "inspect", "--format={{.Id}}", name)
    return ""


def load(given: ImageCopy) -> list:
    """What Docker calls the image that came."""
    source = given["source"]
    key = key_file(given["record"]["stack"], "image-key")
    # The key's one command on the head is `docker save` of this image, whatever is asked for.
    argv = [*from_head(source, key), f"{source['user']}@{source['address']}", "save"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        loaded = subprocess.run(["docker", "load", "--quiet"], stdin=sender.stdout, capture_output=True, text=True)
        # Nobody reads on where that failed, as on a full disk: the sender has to notice.
        assert sender.stdout
        assert sender.stderr
        sender.stdout.close()
        said = sender.stderr.read().decode().strip()
    if sender.returncode or loaded.returncode:
        why = " | ".join(filter(None, [said, loaded.stderr.strip()]))
        sys.exit(f"{given['name']}: the copy from the head failed: {why}")
    return LOADED.findall(loaded.stdout)


def apply(given: ImageCopy) -> None:
    # A name with a digest can be pulled, and not be given to an image.
    name = given["name"].partition("@")[0]
    image = present(given, [given["image"], name])
    if not image:
        say(f"{name}: copying from the head")
        image = present(given, load(given))
        if not image:
            sys.exit(f"{name}: another image than {given['image']} arrived")
    # Without a name `docker image prune` would take it.
    docker("tag", image, name)
    write_record(given["record"], {"images": [image]})
    print(image)


def remove(given: ImageCopy) -> None:
    remove_record(given["record"])


run(apply, remove)
