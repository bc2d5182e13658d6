"""OpenSSH's command line for one Spark. Standard library only: programs on this machine use it, too.

The host key is part of the options (KnownHostsCommand), so no known_hosts file has to exist on whatever
machine runs `pulumi destroy`, and none can be edited behind our back. Source: ssh_config(5), OpenSSH 8.5+.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

CONNECT_TIMEOUT = 5
"""Seconds to wait for a Spark's TCP answer; they are on the same LAN."""


@dataclass(frozen=True)
class Target:
    """One Spark's sshd, and with what to log in there."""

    name: str
    host: str
    port: int
    user: str
    host_key: str
    key_file: str | None
    """None: a running ssh-agent has the key."""


def options(target: Target) -> list[str]:
    """`-o` words, the same for every ssh that is started."""
    chosen = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_TIMEOUT),
        "HostKeyAlias": target.name,
        "KnownHostsCommand": f"/bin/echo {target.name} {target.host_key}",
        "UserKnownHostsFile": "none",
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        # The default file of a user who works with several Sparks names other keys for these hosts.
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
        "ServerAliveInterval": "15",
    }
    if target.key_file is not None:
        chosen |= {"IdentityFile": word(target.key_file), "IdentitiesOnly": "yes"}
    return [word for key, value in chosen.items() for word in ("-o", f"{key}={value}")]


def word(path: str) -> str:
    """A path as one word of ssh_config(5), in which % begins a token."""
    if not re.search(r"""[\s"'\\%]""", path):
        return path
    return '"' + re.sub(r'(["\\])', r"\\\1", path).replace("%", "%%") + '"'


def argv(target: Target, more: Sequence[str] = ()) -> list[str]:
    """`ssh … user@host`, to which a command is appended; `more`: words of ssh's."""
    return ["ssh", *options(target), *more, "-p", str(target.port), f"{target.user}@{target.host}"]
