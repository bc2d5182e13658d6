"""SSH keys that are made on this Spark."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


def make_key(path: str, comment: str) -> None:
    """A pair at `path` and `path`.pub, whole or not at all: where the disk is full ssh-keygen leaves half of one."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        made = os.path.join(folder, "key")
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"no key could be made: {(done.stderr or done.stdout).strip().replace(made, path)}")
        # The private one last: where it is, the other one is too.
        for end in (".pub", ""):
            os.replace(made + end, path + end)
