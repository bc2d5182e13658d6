"""How a Spark copies from the one before it, which passes on what it is still receiving itself.

A Spark that receives holds a lock on a file of its stack's; the kernel lets it go however the process ends. By it the
programs that the next Spark's key may run here (copy_server.py, image_server.py) see how far it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

from .state import stack_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Upstream

PARTIAL = ".copy.incomplete"
"""End of the name of a file of a model that is not here whole. What ends in .incomplete is left out by rsync here, and
counted as a part by the probe."""

IMAGE, SOCKET = "image", "image-passed-on"
"""What an image is among the things that are received, and the socket in the stack's directory from which it is passed
on meanwhile."""

AGAIN = 75
"""Exit code where what was sent so far was not what it should be, and comes anew. Source: sysexits.h, EX_TEMPFAIL."""

GRACE = 60
"""Seconds for a Spark to begin to receive, while the next one already asks it for what it will have."""

LOOK = 0.2
"""Seconds between two looks at something that somebody else on this Spark is doing."""

IDLE, CHECKING, RECEIVING = "idle", "checking", "receiving"
"""What a Spark does for a thing: nothing, so what is there stays as it is; it looks what of it is whole, so what is
there may go; or it receives, and what has its name is whole."""


def key_file(stack: str, kind: str) -> str:
    """Private key with which this Spark copies (copy_key.py); `kind` is that of its record."""
    return os.path.join(stack_directory(stack), kind.replace("-", "_"))


def ssh_upstream(source: Upstream, key: str) -> list:
    """`ssh` to the Spark before this one, over the fabric, with a key of the stack."""
    options = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=5",
        # A Spark that lost its power says nothing more.
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "HostKeyAlias=upstream",
        # Twins may share one subnet, link-local ones do: left to itself, the kernel takes the first one's address, and
        # the other Spark lets the key in from this one alone.
        f"BindAddress={source['own']}",
        f"KnownHostsCommand=/bin/echo upstream {source['host_key']}",
        "UserKnownHostsFile=none",
        # Hardware AES on both Arm and x86: the fastest that OpenSSH has.
        "Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
    )
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", key, "-p", str(source["port"]), *words]


def lock_file(folder: str, what: str) -> str:
    """`folder`: the stack's; `what`: the model's folder, or `image`."""
    return os.path.join(folder, f"receiving-{hashlib.sha256(what.encode()).hexdigest()[:16]}")


@contextlib.contextmanager
def receiving(stack: str, what: str) -> Iterator[Callable[[], None]]:
    """From CHECKING on; RECEIVING from the call of what it yields. No other script of the stack's receives it
    meanwhile."""
    folder = stack_directory(stack)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor = os.open(lock_file(folder, what), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def stage(folder: str, what: str) -> str:
    """IDLE, CHECKING or RECEIVING."""
    try:
        descriptor = os.open(lock_file(folder, what), os.O_RDWR)
    except FileNotFoundError:
        return IDLE
    try:
        for kind, means in ((fcntl.LOCK_EX, IDLE), (fcntl.LOCK_SH, RECEIVING)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                return means
        return CHECKING
    finally:
        os.close(descriptor)
