"""Load the image that the head holds, streamed over the fabric and never staged on a disk.

stdin   JSON: image (the head's id), content (what it holds: shared/images.py), name (to give it), source
        (address, user, port, host_key), record
apply   stdout: the image's id here, which is another one where this Docker keeps images otherwise than the head's
remove  forgets the record; the image stays until `docker image prune`
"""

from __future__ import annotations

import re
import subprocess
import sys

from shared.docker import docker
from shared.head import from_head, key_file
from shared.images import content_of
from shared.job import run, say
from shared.records import remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import ImageCopy

LOADED = re.compile(r"^Loaded image(?: ID)?: (\S+)$", re.M)
"""What `docker load --quiet` prints."""


def present(inputs: ImageCopy, names: list) -> str:
    """Id of the first of `names` that is the head's image; '' where none is."""
    for name in names:
        if content_of(name) == inputs["content"]:
            return docker("image", "inspect", "--format={{.Id}}", name)
    return ""


def load(inputs: ImageCopy) -> list:
    """What Docker calls the image that came."""
    source = inputs["source"]
    key = key_file(inputs["record"]["stack"], "image-key")
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
        sys.exit(f"{inputs['name']}: the copy from the head failed: {why}")
    return LOADED.findall(loaded.stdout)


def apply(inputs: ImageCopy) -> None:
    # A name with a digest can be pulled, and not be given to an image.
    name = inputs["name"].partition("@")[0]
    image = present(inputs, [inputs["image"], name])
    if not image:
        say(f"{name}: copying from the head")
        image = present(inputs, load(inputs))
        if not image:
            sys.exit(f"{name}: another image than {inputs['image']} arrived")
    # Without a name `docker image prune` would take it.
    docker("tag", image, name)
    write_record(inputs["record"], {"images": [image]})
    print(image)


def remove(inputs: ImageCopy) -> None:
    remove_record(inputs["record"])


run(apply, remove)
