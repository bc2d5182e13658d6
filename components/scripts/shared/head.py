"""How another Spark copies from the head."""

from __future__ import annotations

import os

from .state import stack_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import HeadSource


def key_file(stack: str, kind: str) -> str:
    """Private key with which this Spark copies from the head (copy_key.py); `kind` is that of its record."""
    return os.path.join(stack_directory(stack), kind.replace("-", "_"))


def from_head(source: HeadSource, key: str) -> list:
    """`ssh` to the head over the fabric with a key of the stack; source: address, user, port, host_key, own."""
    options = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=5",
        "HostKeyAlias=head",
        # Twins may share one subnet, link-local ones do: left to itself, the kernel takes the first one's address, and
        # the head lets the key in from this one alone.
        f"BindAddress={source['own']}",
        f"KnownHostsCommand=/bin/echo head {source['host_key']}",
        "UserKnownHostsFile=none",
        # Hardware AES on both Arm and x86: the fastest that OpenSSH has.
        "Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
    )
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", key, "-p", str(source["port"]), *words]
