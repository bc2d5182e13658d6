"""Build the engine's image on this Spark.

stdin   JSON: dockerfile (text, needs no files beside it), args {name: value}, tag, limit (seconds), record
apply   stdout: the image's id
remove  forgets the record; the image stays until `docker image prune`
"""

from __future__ import annotations

from common import build, remove_record, run, say, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Build


def apply(given: Build) -> None:
    words = [f"--build-arg={name}={value}" for name, value in sorted(given["args"].items())]
    say(f"building {given['tag']}; this takes from minutes to hours")
    # Stages that the result does not need are left out, and caches are mounted: only BuildKit does.
    image = build(given["dockerfile"], given["tag"], *words, limit=given["limit"], buildkit=True)
    write_record(given["record"], {"images": [image]})
    print(image)


def remove(given: Build) -> None:
    remove_record(given["record"])


run(apply, remove)
