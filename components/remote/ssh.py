"""How to reach a Spark by its settings, and what ssh_config says of it. Nothing is run here."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from components.remote import openssh
from components.remote.openssh import Target
from components.settings import Node, Ssh


def target(node: Node, ssh: Ssh) -> Target:
    login = ssh.login(node)
    return Target(node.name, node.host, login.port, login.user, ssh.host_keys[node.name], login.key_file)


def options(node: Node, ssh: Ssh) -> list[str]:
    """`-o` words for one Spark, the same for the probe and the docker provider."""
    return openssh.options(target(node, ssh))


def argv(node: Node, ssh: Ssh) -> list[str]:
    """`ssh … user@host`, to which a command is appended."""
    return openssh.argv(target(node, ssh))


def docker_host(node: Node, ssh: Ssh) -> str:
    login = ssh.login(node)
    host = f"[{node.host}]" if ":" in node.host else node.host
    return f"ssh://{login.user}@{host}:{login.port}"


def by_hand(node: Node, ssh: Ssh) -> str:
    """The command with which a person logs in."""
    login = ssh.login(node)
    return f"ssh -p {login.port} {login.user}@{node.host}"


def quote(words: Iterable[str]) -> str:
    """A command line of these words that sh, bash, zsh and fish read alike: fish knows escapes inside quotes."""
    return " ".join("'" + re.sub(r"['\\]", lambda found: f"'\\{found[0]}'", word) + "'" for word in words)


@dataclass(frozen=True)
class Config:
    """What ssh_config says of one host, read from what `ssh -G` prints."""

    hostname: str
    """Where to connect to: an address or a name for the system's resolver."""

    user: str
    port: int
    identities: tuple[str, ...] = ()
    """Key files, ~ not expanded; OpenSSH's usual ones, there or not, where none is named."""

    jump: str = ""
    """ProxyJump as written."""

    command: str = ""
    """ProxyCommand."""

    agent: str = ""
    """IdentityAgent as written."""

    known_as: str = ""
    """HostKeyAlias."""

    known_hosts: tuple[str, ...] = ()
    """Files with host keys."""


def parse(text: str) -> Config:
    """Source: ssh(1), -G; ssh_config(5). One `key value` a line, keys in lower case, some more than once."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value.strip())

    def one(key: str) -> str:
        value = found.get(key, [""])[0]
        return "" if value == "none" else value

    return Config(
        hostname=one("hostname").strip("[]"),
        user=one("user"),
        port=int(one("port") or 22),
        identities=tuple(found.get("identityfile", ())),
        jump=one("proxyjump"),
        command=one("proxycommand"),
        agent=one("identityagent"),
        known_as=one("hostkeyalias"),
        known_hosts=(*one("userknownhostsfile").split(), *one("globalknownhostsfile").split()),
    )


def hop(jump: str) -> list[str]:
    """ssh's words for a host of ProxyJump, `[user@]host[:port]` or `ssh://…`; raises ValueError for several."""
    if "," in jump:
        raise ValueError(f"{jump}: more than one")
    user, _, place = jump.removeprefix("ssh://").rstrip("/").rpartition("@")
    # As ssh reads it: a port after brackets, or after the only colon.
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|(.+)", place)
    if not match:
        raise ValueError(f"{jump!r} is no host")
    host, port = match[1] or match[3] or match[5], match[2] or match[4]
    return [*(["-l", user] if user else []), *(["-p", port] if port else []), host]


def preferred(addresses: Iterable[str]) -> str:
    """Always the same one of a host's: IPv4 first, link-local last, then the lowest. `fe80::1%eth0` keeps its zone."""

    def rank(text: str) -> tuple[bool, int, int]:
        address = ipaddress.ip_address(text.partition("%")[0])
        return address.is_link_local, address.version, int(address)

    return min(addresses, key=rank)


def is_encrypted(key: str) -> bool:
    """Does this private key need a passphrase? Sources: OpenSSH's PROTOCOL.key, RFC 1421 and RFC 5958."""
    if "OPENSSH PRIVATE KEY" not in key:
        return "ENCRYPTED" in key
    body = "".join(line for line in key.splitlines() if line and not line.startswith("-"))
    magic = b"openssh-key-v1\0"
    try:
        head = base64.b64decode(body)[len(magic) :]
    except (ValueError, binascii.Error):
        return False
    length = int.from_bytes(head[:4], "big")
    return head[4 : 4 + length] != b"none"


@dataclass(frozen=True)
class Way:
    """How to get to a Spark without ssh_config and the system's resolver: what the command provider is given."""

    host: str
    port: int
    user: str
    host_key: str
    private_key: str = field(default="", repr=False)
    """'': a running ssh-agent has it."""

    agent: str | None = None
    """Its socket; None: SSH_AUTH_SOCK."""

    through: Way | None = None
    """A host to jump from, which resolves `host`."""
