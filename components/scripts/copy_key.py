"""The key with which this Spark copies from the head, made here and never leaving.

stdin   JSON: record
apply   stdout: the public key
"""

from __future__ import annotations

import os
import subprocess

from common import key_file, remove_record, run, stamp, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Managed


def path(given: Managed) -> str:
    return key_file(given["record"]["stack"], given["record"]["kind"])


def apply(given: Managed) -> None:
    key = path(given)
    if not os.path.exists(key):
        os.makedirs(os.path.dirname(key), mode=0o700, exist_ok=True)
        comment = f"dgx-spark:{given['record']['stack']}:{given['record']['kind']}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key], check=True)
    write_record(given["record"], {"files": {p: stamp(p) for p in (key, f"{key}.pub")}})
    with open(f"{key}.pub") as stream:
        print(stream.read().strip())


def remove(given: Managed) -> None:
    remove_record(given["record"])
    for doomed in (path(given), f"{path(given)}.pub"):
        if os.path.exists(doomed):
            os.unlink(doomed)


run(apply, remove)
