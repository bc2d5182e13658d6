"""A fresh key for a server's ranks, with which they know each other; kept in Pulumi's state and in their containers
alone. An SSH key, because MPI's ranks log in to each other with it; to inside/together.py it is a secret text.

apply   stdout: the private key, a secret
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from shared.job import run


def apply(inputs: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        key = os.path.join(folder, "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dgx-spark-ranks", "-f", key], check=True)
        with open(key) as stream:
            print(stream.read(), end="")


def remove(inputs: dict) -> None:
    """Nothing was left."""


run(apply, remove)
