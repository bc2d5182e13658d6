"""The Sparks, and how to log in to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from components import ports
from components.settings.words import Cache, Frozen, Host, HostKey, Name, Port, User, ipv4


class NodeFabric(Frozen):
    """Detected values of one Spark's RDMA link, overridden by hand. An absent key is detected."""

    interface: str | None = None
    """Network device that carries bootstrap sockets, e.g. enp1s0f1np1."""

    address: Annotated[str, BeforeValidator(ipv4)] | None = None
    """IPv4 of `interface`, e.g. 192.168.177.11/24. Without a prefix length: that which the interface has."""

    hcas: tuple[str, ...] | None = None
    """RDMA devices, e.g. [rocep1s0f1, roceP2p1s0f1]. An empty list turns RDMA off on this Spark."""

    gid_index: Annotated[int, Field(ge=0, le=255)] | None = None
    """Index of the RoCE v2 GID in the devices' tables."""


class Node(Frozen):
    """One Spark. The first in the list is the head."""

    name: Name
    """Lower-case letters, digits and hyphens; names resources, so changing it makes them anew."""

    host: Host
    """Address, name or alias of ssh_config: the ordinary Ethernet, not the QSFP link."""

    address: Host | None = None
    """Address or name in the URLs of what it serves. None: `host`, or the HostName that ssh_config gives it."""

    user: User | None = None
    """Account on this Spark. None: `ssh.user`."""

    port: Port | None = None
    """Of its sshd. None: `ssh.port`."""

    private_key_file: str | None = None
    """None: `ssh.privateKeyFile`."""

    gpu: Annotated[str, Field(pattern=r"^GPU-[0-9A-Za-z-]+$")] | None = None
    """UUID of the GPU to use where the Spark has several, as `nvidia-smi -L` prints it."""

    fabric: NodeFabric = NodeFabric()
    cache: Cache | None = None
    """Hugging Face cache directory on this Spark; None: `weights.cache`."""

    @property
    def url_host(self) -> str:
        """Its place in a URL: IPv6 in brackets."""
        where = self.address or self.host
        return f"[{where}]" if ":" in where else where


@dataclass(frozen=True)
class Login:
    """As whom, where and with what to log in to one Spark."""

    user: str
    port: int
    key_file: str | None
    """None: a running ssh-agent has the key."""


USER = "nvidia"
KEY_FILE = "~/.ssh/id_ed25519"


class Ssh(Frozen):
    """How to log in to the Sparks. What is not given here is taken from this machine's ssh_config."""

    user: User | None = None
    """Account on every Spark, a member of the group `docker`. None: ssh_config's, else nvidia."""

    port: Port | None = None
    """Of sshd on every Spark. None: ssh_config's, else 22."""

    host_keys: dict[str, HostKey] = {}
    """Node name → its public host key, as ssh-keyscan, known_hosts or the Spark's own .pub file show it."""

    private_key_file: str | None = None
    """Key on this machine, without a passphrase; or `agent`: the keys of a running ssh-agent. None: ssh_config's
    IdentityFile, else ~/.ssh/id_ed25519."""

    def login(self, node: Node) -> Login:
        """What the settings say of this node, filled up with the defaults (remote/reach.py asks ssh_config before)."""
        key = node.private_key_file or self.private_key_file or KEY_FILE
        return Login(
            node.user or self.user or USER, node.port or self.port or ports.SSH, None if key == "agent" else key
        )
