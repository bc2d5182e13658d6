"""How to reach a Spark by OpenSSH: options only, nothing is run here.

The host key is part of the options (KnownHostsCommand), so no known_hosts file has to exist on whatever
machine runs `pulumi destroy`, and none can be edited behind our back. Source: ssh_config(5), OpenSSH 8.5+.
"""

from __future__ import annotations

from components.settings import Node, Ssh

CONNECT_TIMEOUT = 5
"""Seconds to wait for a Spark's TCP answer; they are on the same LAN."""


def options(node: Node, ssh: Ssh) -> list[str]:
    """`-o` words for one Spark, the same for the probe and the docker provider."""
    chosen = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_TIMEOUT),
        "HostKeyAlias": node.name,
        "KnownHostsCommand": f"/bin/echo {node.name} {ssh.host_keys[node.name]}",
        "UserKnownHostsFile": "none",
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        # The default file of a user who works with several Sparks names other keys for these hosts.
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
        "ServerAliveInterval": "15",
    }
    if ssh.key_file is not None:
        chosen |= {"IdentityFile": ssh.key_file, "IdentitiesOnly": "yes"}
    return [word for key, value in chosen.items() for word in ("-o", f"{key}={value}")]


def argv(node: Node, ssh: Ssh) -> list[str]:
    """`ssh … user@host`, to which a command is appended."""
    return ["ssh", *options(node, ssh), "-p", str(ssh.port), f"{ssh.user}@{node.host}"]


def docker_host(node: Node, ssh: Ssh) -> str:
    return f"ssh://{ssh.user}@{node.host}:{ssh.port}"
