"""The key with which this Spark copies from the one before it, made here and never leaving.

stdin   JSON: record
apply   stdout: the public key
"""

from __future__ import annotations

import os

from shared.files import stamp
from shared.upstream import key_file
from shared.job import run
from shared.keys import make_key
from shared.records import remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Managed


def path(inputs: Managed) -> str:
    return key_file(inputs["record"]["stack"], inputs["record"]["kind"])


def apply(inputs: Managed) -> None:
    key = path(inputs)
    # Former versions may have left half a pair.
    if not (os.path.exists(key) and os.path.exists(f"{key}.pub")):
        os.makedirs(os.path.dirname(key), mode=0o700, exist_ok=True)
        make_key(key, f"dgx-spark:{inputs['record']['stack']}:{inputs['record']['kind']}")
    write_record(inputs["record"], {"files": {p: stamp(p) for p in (key, f"{key}.pub")}})
    with open(f"{key}.pub") as stream:
        print(stream.read().strip())


def remove(inputs: Managed) -> None:
    remove_record(inputs["record"])
    for doomed in (path(inputs), f"{path(inputs)}.pub"):
        if os.path.exists(doomed):
            os.unlink(doomed)


run(apply, remove)
