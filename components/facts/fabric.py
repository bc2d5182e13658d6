"""Which port of each Spark is the fabric, and what stands against it: rules over all Sparks' RDMA ports. Pure.

Rules (docs/architecture.md says why): only ports that are Up, for RDMA too; an IPv4 address first, a fixed one before a
link-local one; then names that begin with enp1, then names without a capital P; never the 10G port or wireless. All
Sparks take a port in one common subnet. HCAs are the primary's device and its twin on the same QSFP port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from components.facts import rdma
from components.facts.rdma import LINK_LOCAL, Address, Place, Port
from components.facts.spark import NodeFacts
from components.problems import Problem, Severity
from components.settings import Node, Settings

EXPECTED_GBPS = 200
"""ConnectX-7 port of a Spark, both twins together. Source: NVIDIA DGX Spark user guide."""

Network = ipaddress.IPv4Network


@dataclass(frozen=True)
class RoceGid:
    """The RoCE v2 GID by which an RDMA device is reached."""

    device: str
    index: int
    address: str
    """IPv4 that it maps."""


@dataclass(frozen=True)
class NodeLink:
    """One Spark's place on the fabric, as planned."""

    node: str
    interface: str
    address: str
    """IPv4 without prefix."""

    prefix: int
    hcas: tuple[str, ...]
    """RDMA devices, the primary's first. Empty: no RDMA, sockets only."""

    gid_index: int | None
    """Index of the RoCE v2 GID, where all `hcas` agree. None: NCCL chooses per device."""

    mtu: int
    gids: tuple[RoceGid, ...] = ()
    """Of each device that has one for its address; empty where `gid_index` was set by hand."""

    gid_range: str | None = None
    """Where the devices' indexes differ: a subnet that holds the addresses of `gids` and none besides."""

    @property
    def subnet(self) -> Network:
        return Network(f"{self.address}/{self.prefix}", strict=False)


def shared_subnets(per_node: Sequence[Sequence[Place]]) -> list[Network]:
    """Subnets in which every Spark has an address on an RDMA port, in the head's order."""
    everywhere = [{place.address.network for place in places} for places in per_node]
    found = [place.address.network for place in per_node[0]] if per_node else []
    return [network for network in dict.fromkeys(found) if all(network in networks for networks in everywhere)]


def detect(settings: Settings, facts: Mapping[str, NodeFacts]) -> tuple[dict[str, NodeLink], list[Problem]]:
    """Every Spark's link, and what keeps a Spark from having one."""
    per_node = {node.name: rdma.places(facts[node.name]) for node in settings.nodes if node.name in facts}
    free = [found for name, found in per_node.items() if not _node(settings, name).fabric.address]
    shared = shared_subnets(free)
    links: dict[str, NodeLink] = {}
    problems: list[Problem] = []
    for index, node in enumerate(settings.nodes):
        if node.name not in facts:
            continue
        chosen = _choose(node, facts[node.name], per_node[node.name], shared)
        if isinstance(chosen, str):
            problems.append(Problem(f"{node.name}: fabric", chosen, _override_hint(index)))
            continue
        links[node.name] = _link(settings, node, facts[node.name], *chosen, shared)
    problems += _separated(links, per_node)
    return links, problems


def _node(settings: Settings, name: str) -> Node:
    return next(node for node in settings.nodes if node.name == name)


def _override_hint(index: int) -> str:
    return (
        "check the QSFP cable and `ibdev2netdev` on it; or name the interface: "
        f"pulumi config set --path 'nodes[{index}].fabric.interface' enp1s0f1np1"
    )


def _choose(
    node: Node, facts: NodeFacts, found: Sequence[Place], shared: Sequence[Network]
) -> tuple[str, Address] | str:
    """(interface, address), or what is wrong."""
    override = node.fabric
    if override.address:
        return _chosen_address(facts, override.address, override.interface)
    if override.interface:
        own = sorted(rdma.addresses(facts, override.interface), key=lambda address: address in LINK_LOCAL)
        own.sort(key=lambda address: address.network not in shared)
        return (override.interface, own[0]) if own else f"{override.interface} has no IPv4 address"
    up = rdma.up_ports(facts)
    if not up:
        down = "; ".join(sorted(_half_up(port, state) for port, state in rdma.half_up(facts).items()))
        return "no RDMA port is Up" + (f" ({down})" if down else "")
    if not found:
        return f"no IPv4 address on an RDMA port that is Up ({', '.join(sorted(port.netdev for port in up))})"
    place = next((place for network in shared[:1] for place in found if place.address.network == network), found[0])
    return place.interface, place.address


def _chosen_address(facts: NodeFacts, text: str, interface: str | None) -> tuple[str, Address] | str:
    """By hand: where no prefix length was written, the interface that has the address knows it."""
    wanted = Address(text)
    names = [interface] if interface else [link.name for link in facts.links]
    owned = [(name, own) for name in names for own in rdma.addresses(facts, name) if own.ip == wanted.ip]
    if "/" in text and (owned or interface):
        return (owned[0][0] if owned else str(interface), wanted)
    if owned:
        return owned[0]
    return f"{interface} has not the address {wanted.ip}" if interface else f"no interface has the address {wanted.ip}"


def _half_up(port: Port, state: str) -> str:
    return f"{port.netdev} is Up, but its RDMA device {port.device} is {state}"


def carrying(facts: NodeFacts, interface: str) -> list[Port]:
    """Ports that carry the interface's traffic (more than one under a bond), and their twins; best first."""
    up = sorted(rdma.up_ports(facts), key=lambda port: rdma.preference(facts, port))
    primaries = [port for port in up if interface in rdma.carriers(facts, port.netdev)]
    return list(dict.fromkeys([*primaries, *(twin for port in primaries for twin in rdma.twins(port, up))]))


def idle_twins(facts: NodeFacts, ports: Sequence[Port]) -> list[Port]:
    """Twins without an IPv4 address: they have no GID by which a peer could reach them."""
    return [port for port in ports[1:] if _gidless(facts, port.device)]


def _gidless(facts: NodeFacts, device: str) -> bool:
    known = rdma.device(facts, device)
    return known is not None and not any(rdma.roce_v2(known))


def _link(
    settings: Settings, node: Node, facts: NodeFacts, interface: str, address: Address, shared: Sequence[Network]
) -> NodeLink:
    hcas = node.fabric.hcas
    if hcas is None:
        ports = carrying(facts, interface)
        idle = idle_twins(facts, ports)
        hcas = tuple(port.device for port in ports if port not in idle)
        hcas = hcas[:1] if settings.fabric.hcas == "single" else hcas
    mtu = next((link.mtu for link in facts.links if link.name == interface), 0)
    place = (node.name, interface, str(address.ip), address.network.prefixlen, hcas)
    if node.fabric.gid_index is not None:
        return NodeLink(*place, node.fabric.gid_index, mtu)
    gids = tuple(gid for device in hcas if (gid := _gid(facts, device, address, shared)))
    indexes = {gid.index for gid in gids}
    same = len(indexes) == 1 and len(gids) == len(hcas)
    return NodeLink(*place, indexes.pop() if same else None, mtu, gids, None if same else _range(facts, gids))


def _gid(facts: NodeFacts, device: str, address: Address, shared: Sequence[Network]) -> RoceGid | None:
    """That of the link's address; on a twin, which has its own, of the one in a subnet that all Sparks share."""
    found = list(rdma.roce_v2(rdma.device(facts, device)))
    own = {interface.ip: interface for link in facts.links for interface in rdma.addresses(facts, link.name)}
    primary = any(mapped == address.ip for _, mapped in found)

    def order(gid: tuple[int, ipaddress.IPv4Address]) -> tuple[bool, bool, bool, int]:
        index, mapped = gid
        network = own[mapped].network if mapped in own else None
        return mapped != address.ip, network not in shared, mapped in LINK_LOCAL, index

    if not found or (not primary and _carries(facts, device, address)):
        return None
    index, mapped = min(found, key=order)
    return RoceGid(device, index, str(mapped))


def _carries(facts: NodeFacts, device: str, address: Address) -> bool:
    """Is it the device's own port on which the address is? Then no other GID will do."""
    netdevs = [port.netdev for port in rdma.ports(facts) if port.device == device]
    names = [name for netdev in netdevs for name in rdma.carriers(facts, netdev)]
    return any(address.ip == own.ip for name in names for own in rdma.addresses(facts, name))


def _range(facts: NodeFacts, gids: Sequence[RoceGid]) -> str | None:
    """The smallest subnet with all addresses of `gids`, unless a device has another address in it."""
    if not gids:
        return None
    wanted = [ipaddress.IPv4Address(gid.address) for gid in gids]
    network = Network(wanted[0])
    while not all(address in network for address in wanted):
        network = network.supernet()
    return None if _strangers(facts, gids, network) else str(network)


def _strangers(facts: NodeFacts, gids: Sequence[RoceGid], network: Network) -> dict[str, list[str]]:
    """Device → its addresses in the subnet that were not chosen."""
    found = {
        gid.device: [
            str(address)
            for _, address in rdma.roce_v2(rdma.device(facts, gid.device))
            if address in network and str(address) != gid.address
        ]
        for gid in gids
    }
    return {device: addresses for device, addresses in found.items() if addresses}


def _separated(links: Mapping[str, NodeLink], per_node: Mapping[str, Sequence[Place]]) -> Iterator[Problem]:
    if len({link.subnet for link in links.values()}) > 1:
        where = ", ".join(f"{link.node} {link.address}/{link.prefix} on {link.interface}" for link in links.values())
        yield _without_switch(per_node) or Problem(
            "fabric",
            f"the Sparks are in different subnets: {where}",
            "give the cabled ports addresses in one subnet, one per twin, or set nodes[].fabric.interface",
        )
    twice = [link.address for link in links.values()]
    if len(set(twice)) < len(twice):
        yield Problem("fabric", f"the same address on several Sparks: {', '.join(twice)}", "each needs its own")
    mtus = {link.mtu for link in links.values()}
    if len(mtus) > 1:
        where = ", ".join(f"{link.node} {link.mtu}" for link in links.values())
        yield Problem("fabric", f"the MTU differs: {where}", "set 9000 on both ends (ip link set IF mtu 9000, netplan)")


RING_FIX = "connect all of them to one switch, or make a stack of two that share a cable"


def _without_switch(per_node: Mapping[str, Sequence[Place]]) -> Problem | None:
    """Three and more Sparks whose cables go from one to the next; None where that is not what it looks like."""
    networks = {name: {place.address.network for place in places} for name, places in per_node.items()}
    pairs = {
        (one, other): sorted(networks[one] & networks[other])
        for one, other in combinations(networks, 2)
        if networks[one] & networks[other]
    }
    neighbours = [sum(name in pair for pair in pairs) for name in networks]
    if len(networks) < 3 or min(neighbours, default=0) < 1 or len(pairs) < len(networks) - 1:
        return None
    shape = "ring" if min(neighbours) > 1 else "chain"
    where = ", ".join(f"{one} – {other} {found[0]}" for (one, other), found in pairs.items())
    wrong = (
        f"the Sparks are cabled in a {shape}, each pair in a subnet of its own ({where}), which is not supported yet"
    )
    return Problem("fabric", wrong, RING_FIX)


def warnings(settings: Settings, facts: Mapping[str, NodeFacts], links: Mapping[str, NodeLink]) -> Iterator[Problem]:
    """What works but should be known. Traffic off RDMA is refused where fabric.rdma says `require`."""
    for name, link in links.items():
        known = facts[name]
        for port, state in rdma.half_up(known).items():
            if link.interface in rdma.carriers(known, port.netdev):
                continue  # chosen by hand: said below
            yield _warn(name, f"{_half_up(port, state)}: not used", "reseat the cable, or reboot; `rdma link` shows it")
        if not link.hcas or not known.infiniband_device:
            yield _off_rdma(settings, name, _no_rdma(known, link))
            continue
        yield from _slow(known, link)
        if _node(settings, name).fabric.gid_index is None:
            yield from _unreachable(known, link)
        yield from _other_ports(known, link)
        yield from _weak_addresses(known, link)
    ports = {_port_name(facts[name], link) for name, link in links.items()}
    if len(ports) > 1:
        names = ", ".join(sorted(ports))
        yield _warn("fabric", f"the Sparks use different physical ports ({names})", "leave it if they are cabled so")
    if _may_be_ring(facts, links):
        yield _warn(
            "fabric",
            "every Spark has both QSFP ports up on link-local addresses; a ring without a switch is not supported yet",
            f"leave it if all are on switches; otherwise {RING_FIX}",
        )


def _warn(at: str, wrong: str, fix: str) -> Problem:
    return Problem(at, wrong, fix, Severity.WARN)


def _off_rdma(settings: Settings, name: str, reason: str) -> Problem:
    wrong = f"traffic would not be on RDMA ({reason}): 10-20 times slower"
    if settings.fabric.rdma == "require":
        return Problem(name, wrong, "mend it, or allow sockets: pulumi config set --path fabric.rdma warn")
    return _warn(name, wrong, "./spark doctor says what is lacking")


def _no_rdma(facts: NodeFacts, link: NodeLink) -> str:
    if link.hcas:
        return "/dev/infiniband is missing"
    for port, state in rdma.half_up(facts).items():
        if link.interface in rdma.carriers(facts, port.netdev):
            return f"{port.device} is {state}"
    return f"{link.interface} is no RDMA port"


def _slow(facts: NodeFacts, link: NodeLink) -> Iterator[Problem]:
    devices = [rdma.device(facts, hca) for hca in link.hcas]
    slowest = min((speed for one in devices if one and (speed := rdma.rate(one))), default=EXPECTED_GBPS)
    if slowest < EXPECTED_GBPS:
        yield _warn(link.node, f"{link.hcas[0]} runs at {slowest} Gb/s, not {EXPECTED_GBPS}", "check the cable")


def _unreachable(facts: NodeFacts, link: NodeLink) -> Iterator[Problem]:
    """Devices without a GID, or with several among which NCCL can't be told to choose."""
    with_gid = {gid.device for gid in link.gids}
    for device in link.hcas:
        if device not in with_gid:
            wrong = f"{device} has no RoCE v2 GID for {link.address}"
            yield _warn(link.node, wrong, "set its interface down and up again; reboot if that does not help")
    if link.gid_index is None and link.gid_range is None:
        for device, others in _strangers(facts, link.gids, Network("0.0.0.0/0")).items():
            yield _warn(
                link.node,
                f"{device} has other addresses ({', '.join(others)}), of which NCCL may take one",
                "remove them, or pulumi config set --path fabric.hcas single",
            )


def _ports_of(facts: NodeFacts, link: NodeLink) -> list[Port]:
    return [port for port in rdma.ports(facts) if port.device in link.hcas]


def _port_name(facts: NodeFacts, link: NodeLink) -> str:
    return next((rdma.physical(port.netdev) for port in _ports_of(facts, link)), rdma.physical(link.interface))


def _other_ports(facts: NodeFacts, link: NodeLink) -> Iterator[Problem]:
    """Ports that are up and carry nothing of ours."""
    for port in idle_twins(facts, carrying(facts, link.interface)):
        yield _warn(
            link.node,
            f"{port.device} carries nothing: {port.netdev} has no IPv4 address",
            "./spark setup-network gives it one, and with it the other half of the cable",
        )
    ours = {rdma.physical(port.netdev) for port in _ports_of(facts, link)}
    others = [port.netdev for port in rdma.up_ports(facts) if rdma.physical(port.netdev) not in ours]
    if others:
        yield _warn(
            link.node, f"{', '.join(sorted(others))} is Up too and not used", "nodes[].fabric.interface chooses"
        )


def _weak_addresses(facts: NodeFacts, link: NodeLink) -> Iterator[Problem]:
    shared = _twins_in_one_subnet(facts, link)
    if shared:
        yield _warn(
            link.node,
            f"both twins are in {shared}, where NCCL hangs on some switches",
            "one subnet per twin (./spark setup-network), or pulumi config set --path fabric.hcas single",
        )
    if link.subnet.subnet_of(LINK_LOCAL):
        yield _warn(
            link.node,
            f"{link.address} is link-local and may change at a reboot",
            "./spark setup-network gives it a fixed one",
        )


def _twins_in_one_subnet(facts: NodeFacts, link: NodeLink) -> Network | None:
    names = {name for port in _ports_of(facts, link) for name in rdma.carriers(facts, port.netdev)}
    networks = [address.network for name in sorted(names) for address in rdma.addresses(facts, name)]
    return next((network for network in networks if networks.count(network) > 1), None)


def _may_be_ring(facts: Mapping[str, NodeFacts], links: Mapping[str, NodeLink]) -> bool:
    def both_up(known: NodeFacts) -> bool:
        return len({rdma.physical(port.netdev) for port in rdma.up_ports(known)}) > 1

    local: Collection[NodeLink] = [link for link in links.values() if link.subnet.subnet_of(LINK_LOCAL)]
    return len(links) > 2 and len(local) == len(links) and all(both_up(facts[name]) for name in links)
