"""A key for a server's ranks, with which they know each other; kept in Pulumi's state and in their containers alone. An
SSH key, because MPI's ranks log in to each other with it; to inside/together.py it is a secret text.

A fresh one, but where ranks of this stack run whose key the state has lost: another would make them all anew.

stdin   JSON: stack, path (of the key in a rank's container)
apply   stdout: the private key, a secret
"""

from __future__ import annotations

import os
import tempfile

from shared.docker import containers, file_in
from shared.job import run
from shared.keys import make_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import RankKey


def apply(inputs: RankKey) -> None:
    for container in containers(inputs["stack"]):
        known = file_in(container["Id"], inputs["path"])
        if known:
            print(known.decode(), end="")
            return
    with tempfile.TemporaryDirectory() as folder:
        key = os.path.join(folder, "key")
        make_key(key, "dgx-spark-ranks")
        with open(key) as stream:
            print(stream.read(), end="")


def remove(inputs: RankKey) -> None:
    """Nothing was left."""


run(apply, remove)
