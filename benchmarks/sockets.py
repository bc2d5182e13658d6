"""TCP connections of this machine to another one, by the kernel's own list. Where there is none, there are none."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path

LISTS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def towards(host: str, port: int) -> set[str]:
    """The local ends of those that are open, or were closed from here within the last minute."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        texts = [path.read_text() for path in LISTS if path.exists()]
    except OSError:
        return set()
    every = (one for text in texts for one in parse(text))
    return {local for local, address, its_port in every if address in addresses and its_port == port}


def parse(text: str) -> Iterator[tuple[str, str, int]]:
    """Local end as it is written, remote address and port. Source: proc(5), /proc/net/tcp."""
    for line in text.splitlines()[1:]:
        _, local, remote, *_ = line.split()
        address, _, port = remote.partition(":")
        yield local, _address(address), int(port, 16)


def _address(digits: str) -> str:
    """Words of 32 bits, each in this machine's order of bytes."""
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    found = ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)
