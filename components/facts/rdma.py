"""RDMA ports of one Spark, over what ibdev2netdev, sysfs and ip show: which are up, on what, with which GIDs. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.facts.spark import NodeFacts, RdmaDevice

LINE = re.compile(
    r"^(?:[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.\d )?(?P<device>\S+) (?:\(.*\) .*)?port \d+ "
    r"(?:\([A-Z_]+ *\) )?==> (?P<netdev>\S+) \((?P<state>Up|Down|NA)\)$"
)
"""Of ibdev2netdev, and of its form with -v, which some builds print without being asked: PCI address and card first,
the RDMA port's state before the arrow. Source: Mellanox/mlnx-tools, ofed_scripts/ibdev2netdev."""

NEVER = re.compile(r"^(enP7s7|wl.*|docker.*|br-.*|veth.*|lo)$")
"""Not for cluster traffic: the Spark's 10G port, wireless and what Docker makes."""

LINK_LOCAL = ipaddress.IPv4Network("169.254.0.0/16")

Address = ipaddress.IPv4Interface


@dataclass(frozen=True)
class Port:
    """An RDMA device and the network device that is listed with it."""

    device: str
    netdev: str
    up: bool = True
    """Of the network device; the RDMA device may be down all the same."""


@dataclass(frozen=True)
class Place:
    """An address that an RDMA port carries."""

    port: Port
    interface: str
    """The port's network device, a bond that it is in, or a VLAN on one of them."""

    address: Address


def parse_ibdev2netdev(text: str) -> list[Port]:
    """Ports in the tool's order, which is not stable over boots; none where it prints something else (its usage)."""
    matches = (LINE.match(line.strip()) for line in text.splitlines())
    return [Port(m["device"], m["netdev"], m["state"] == "Up") for m in matches if m]


def ports(facts: NodeFacts) -> list[Port]:
    """From ibdev2netdev, or from sysfs where that tool is absent or says nothing of ports."""
    listed = parse_ibdev2netdev(facts.ibdev2netdev)
    if not listed:
        listed = [Port(one.name, one.netdev, active(one)) for one in facts.rdma if one.netdev]
    return [port for port in listed if not NEVER.match(port.netdev)]


def device(facts: NodeFacts, name: str) -> RdmaDevice | None:
    return next((one for one in facts.rdma if one.name == name), None)


def active(one: RdmaDevice | None) -> bool:
    """Also where sysfs says nothing of it."""
    return one is None or "ACTIVE" in one.state


def up_ports(facts: NodeFacts) -> list[Port]:
    return [port for port in ports(facts) if port.up and active(device(facts, port.device))]


def half_up(facts: NodeFacts) -> dict[Port, str]:
    """Ports with a carrier whose RDMA device is down, and what it is instead of ACTIVE."""
    found = {port: device(facts, port.device) for port in ports(facts) if port.up}
    return {port: one.state.split(": ")[-1] for port, one in found.items() if one and not active(one)}


def addresses(facts: NodeFacts, netdev: str) -> list[Address]:
    found = [a for link in facts.links if link.name == netdev for a in link.addresses]
    return [Address(address) for address in found]


def carriers(facts: NodeFacts, netdev: str) -> list[str]:
    """Interfaces whose traffic goes through `netdev`: itself, then a bond that it is in, then VLANs on any of them."""
    found = [netdev]
    for name in found:
        bonds = [link.master for link in facts.links if link.name == name and link.master]
        vlans = [link.name for link in facts.links if link.parent == name]
        found += [other for other in (*bonds, *vlans) if other not in found]
    return found


def preference(facts: NodeFacts, port: Port) -> tuple[bool, int, str]:
    """Sorts candidates for the primary, best first."""
    rank = 0 if port.netdev.startswith("enp1") else 1 if "P" not in port.netdev else 2
    without = not any(addresses(facts, name) for name in carriers(facts, port.netdev))
    return (without, rank, port.netdev)


def places(facts: NodeFacts) -> list[Place]:
    """Every address of every port that is up: fixed ones before link-local ones, then by preference of the port."""
    ordered = sorted(up_ports(facts), key=lambda port: preference(facts, port))
    found = [
        Place(port, name, address)
        for port in ordered
        for name in carriers(facts, port.netdev)
        for address in addresses(facts, name)
    ]
    return sorted(found, key=lambda place: place.address in LINK_LOCAL)


def physical(netdev: str) -> str:
    """The QSFP port's name: twins differ only in the PCIe domain (enP2p1s0f1np1 and enp1s0f1np1)."""
    return re.sub(r"^enP\d+p", "enp", netdev)


def twins(primary: Port, among: Sequence[Port]) -> list[Port]:
    """The primary and the other half of its QSFP port.

    Ordered by us, because a shell's sort would depend on the locale (the capital P).
    """
    same = [port for port in among if physical(port.netdev) == physical(primary.netdev) and port != primary]
    return [primary, *sorted(same, key=lambda port: port.device)]


def roce_v2(one: RdmaDevice | None) -> Iterator[tuple[int, ipaddress.IPv4Address]]:
    """(index, address) of each RoCE v2 GID that maps an IPv4 address, by index."""
    for gid in sorted(one.gids, key=lambda gid: gid.index) if one else ():
        address = ipaddress.IPv6Address(gid.gid).ipv4_mapped
        if gid.type == "RoCE v2" and address:
            yield gid.index, address


def rate(one: RdmaDevice) -> int | None:
    """Gb/s from `200 Gb/sec (4X HDR)`; None where sysfs does not say."""
    match = re.match(r"(\d+)", one.rate)
    return int(match[1]) if match else None
