"""Build the engine's image on this Spark.

stdin   JSON: dockerfile (text, needs no files beside it), args {name: value}, tag, limit (seconds), record
apply   stdout: the image's id; stderr: what the build is at, now and then
remove  forgets the record; the image stays until `docker image prune`
"""

from __future__ import annotations

from shared.docker import attended
from shared.building import build
from shared.job import run, say
from shared.records import remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Build


def apply(inputs: Build) -> None:
    attended()
    say(f"building {inputs['tag']}; this takes from minutes to hours")
    # Stages that the result does not need are left out, and caches are mounted: only BuildKit does.
    image = build(inputs["dockerfile"], inputs["tag"], limit=inputs["limit"], arguments=inputs["args"], buildkit=True)
    write_record(inputs["record"], {"images": [image]})
    print(image)


def remove(inputs: Build) -> None:
    remove_record(inputs["record"])


run(apply, remove)
