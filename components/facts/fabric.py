"""Which port of each Spark is the fabric: rules over what ibdev2netdev and sysfs show. Pure.

Rules (docs/architecture.md says why): only ports that are Up; an IPv4 address first; then names that
begin with enp1, then names without a capital P; never the 10G port or wireless. All Sparks take a
port in one common subnet. HCAs are the primary's device and its twin on the same QSFP port.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.facts.spark import NodeFacts, RdmaDevice
from components.problems import Problem, Severity
from components.settings import Node, Settings

LINE = re.compile(r"^(?P<device>\S+) port (?P<port>\d+) ==> (?P<netdev>\S+) \((?P<state>Up|Down)\)$")

NEVER = re.compile(r"^(enP7s7|wl.*|docker.*|br-.*|veth.*|lo)$")
"""Not for cluster traffic: the Spark's 10G port, wireless and what Docker makes."""

EXPECTED_GBPS = 200
"""ConnectX-7 port of a Spark, both twins together. Source: NVIDIA DGX Spark user guide."""

LINK_LOCAL = ipaddress.IPv4Network("169.254.0.0/16")
MAPPED = "0000:0000:0000:0000:0000:ffff:"


@dataclass(frozen=True)
class Port:
    """An RDMA port that is Up."""

    device: str
    netdev: str


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

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"{self.address}/{self.prefix}", strict=False)


def parse_ibdev2netdev(text: str) -> list[Port]:
    """Ports that the tool shows as Up, in its order (which is not stable over boots)."""
    matches = (LINE.match(line.strip()) for line in text.splitlines())
    return [Port(m["device"], m["netdev"]) for m in matches if m and m["state"] == "Up"]


def up_ports(facts: NodeFacts) -> list[Port]:
    """From ibdev2netdev, or from sysfs where that tool is absent or says nothing."""
    ports = parse_ibdev2netdev(facts.ibdev2netdev)
    if not facts.ibdev2netdev.strip():
        ports = [Port(d.name, d.netdev) for d in facts.rdma if d.netdev and "ACTIVE" in d.state]
    return [port for port in ports if not NEVER.match(port.netdev)]


def addresses(facts: NodeFacts, netdev: str) -> list[ipaddress.IPv4Interface]:
    found = [a for link in facts.links if link.name == netdev for a in link.addresses]
    return [ipaddress.IPv4Interface(address) for address in found]


def preference(facts: NodeFacts, port: Port) -> tuple[bool, int, str]:
    """Sorts candidates for the primary, best first."""
    rank = 0 if port.netdev.startswith("enp1") else 1 if "P" not in port.netdev else 2
    return (not addresses(facts, port.netdev), rank, port.netdev)


def candidates(facts: NodeFacts) -> list[tuple[Port, ipaddress.IPv4Interface]]:
    ordered = sorted(up_ports(facts), key=lambda port: preference(facts, port))
    return [(port, address) for port in ordered for address in addresses(facts, port.netdev)]


def common_subnet(per_node: Sequence[Sequence[tuple[Port, ipaddress.IPv4Interface]]]) -> ipaddress.IPv4Network | None:
    """The first subnet, in the head's order, in which every Spark has an address on an RDMA port."""
    head, *others = per_node
    for _, address in head:
        if all(any(other.network == address.network for _, other in nodes) for nodes in others):
            return address.network
    return None


def physical(netdev: str) -> str:
    """The QSFP port's name: twins differ only in the PCIe domain (enP2p1s0f1np1 and enp1s0f1np1)."""
    return re.sub(r"^enP\d+p", "enp", netdev)


def twins(primary: Port, ports: Sequence[Port]) -> list[Port]:
    """The primary and the other half of its QSFP port.

    Ordered by us, because a shell's sort would depend on the locale (the capital P).
    """
    same = [port for port in ports if physical(port.netdev) == physical(primary.netdev) and port != primary]
    return [primary, *sorted(same, key=lambda port: port.device)]


def roce_v2_gid(facts: NodeFacts, device: str) -> int | None:
    """Lowest index of a RoCE v2 GID that maps an IPv4 address; None: there is none."""
    gids = [gid for d in facts.rdma if d.name == device for gid in d.gids]
    indexes = [gid.index for gid in gids if gid.type == "RoCE v2" and gid.gid.startswith(MAPPED)]
    return min(indexes, default=None)


def agreed(values: Sequence[int | None]) -> int | None:
    return values[0] if values and len(set(values)) == 1 else None


def detect(settings: Settings, facts: Mapping[str, NodeFacts]) -> tuple[dict[str, NodeLink], list[Problem]]:
    """Every Spark's link, and what keeps a Spark from having one."""
    per_node = {node.name: candidates(facts[node.name]) for node in settings.nodes if node.name in facts}
    free = [found for name, found in per_node.items() if not _node(settings, name).fabric.address]
    subnet = common_subnet(free) if free else None
    links: dict[str, NodeLink] = {}
    problems: list[Problem] = []
    for index, node in enumerate(settings.nodes):
        if node.name not in facts:
            continue
        chosen = _choose(node, facts[node.name], per_node[node.name], subnet)
        if isinstance(chosen, str):
            problems.append(Problem(f"{node.name}: fabric", chosen, _override_hint(index)))
            continue
        interface, address = chosen
        links[node.name] = _link(settings, node, facts[node.name], interface, address)
    problems += _separated(links)
    return links, problems


def _node(settings: Settings, name: str) -> Node:
    return next(node for node in settings.nodes if node.name == name)


def _override_hint(index: int) -> str:
    return (
        "check the QSFP cable and `ibdev2netdev` on it; or name the interface: "
        f"pulumi config set --path 'nodes[{index}].fabric.interface' enp1s0f1np1"
    )


def _choose(
    node: Node,
    facts: NodeFacts,
    found: Sequence[tuple[Port, ipaddress.IPv4Interface]],
    subnet: ipaddress.IPv4Network | None,
) -> tuple[str, ipaddress.IPv4Interface] | str:
    """(interface, address), or what is wrong."""
    override = node.fabric
    if override.address:
        address = ipaddress.IPv4Interface(override.address)
        owners = [link.name for link in facts.links if str(address.ip) in {a.split("/")[0] for a in link.addresses}]
        interface = override.interface or next(iter(owners), None)
        return (interface, address) if interface else f"no interface has the address {address.ip}"
    if override.interface:
        own = addresses(facts, override.interface)
        return (override.interface, own[0]) if own else f"{override.interface} has no IPv4 address"
    if not up_ports(facts):
        return "no RDMA port is Up"
    if not found:
        names = ", ".join(sorted(port.netdev for port in up_ports(facts)))
        return f"no IPv4 address on an RDMA port that is Up ({names})"
    port, address = next(((p, a) for p, a in found if a.network == subnet), found[0])
    return port.netdev, address


def _link(
    settings: Settings, node: Node, facts: NodeFacts, interface: str, address: ipaddress.IPv4Interface
) -> NodeLink:
    ports = up_ports(facts)
    primary = next((port for port in ports if port.netdev == interface), None)
    if node.fabric.hcas is not None:
        hcas = node.fabric.hcas
    elif primary is None:
        hcas = ()
    else:
        hcas = tuple(port.device for port in twins(primary, ports))
        hcas = hcas[:1] if settings.fabric.hcas == "single" else hcas
    gid = node.fabric.gid_index
    if gid is None:
        gid = agreed([roce_v2_gid(facts, device) for device in hcas])
    mtu = next((link.mtu for link in facts.links if link.name == interface), 0)
    return NodeLink(node.name, interface, str(address.ip), address.network.prefixlen, hcas, gid, mtu)


def _separated(links: Mapping[str, NodeLink]) -> Iterator[Problem]:
    if len({link.subnet for link in links.values()}) > 1:
        where = ", ".join(f"{link.node} {link.address}/{link.prefix} on {link.interface}" for link in links.values())
        yield Problem(
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


def warnings(settings: Settings, facts: Mapping[str, NodeFacts], links: Mapping[str, NodeLink]) -> Iterator[Problem]:
    """What works but should be known. Traffic off RDMA is refused where fabric.rdma says `require`."""
    for name, link in links.items():
        devices = [_device(facts[name], hca) for hca in link.hcas]
        if not link.hcas or not facts[name].infiniband_device:
            reason = "/dev/infiniband is missing" if link.hcas else f"{link.interface} is no RDMA port"
            yield _off_rdma(settings, name, reason)
            continue
        slowest = min((speed for device in devices if device and (speed := rate(device))), default=EXPECTED_GBPS)
        if slowest < EXPECTED_GBPS:
            yield _warn(name, f"{link.hcas[0]} runs at {slowest} Gb/s, not {EXPECTED_GBPS}", "check the cable")
        for hca in link.hcas:
            if node_gid(settings, name) is None and roce_v2_gid(facts[name], hca) is None:
                yield _warn(name, f"{hca} has no RoCE v2 GID for an IPv4 address", "give its interface an address")
        others = [p.netdev for p in up_ports(facts[name]) if physical(p.netdev) != physical(link.interface)]
        if others:
            yield _warn(name, f"{', '.join(sorted(others))} is Up too and not used", "nodes[].fabric.interface chooses")
        shared = _twins_in_one_subnet(facts[name], link)
        if shared:
            yield _warn(
                name,
                f"both twins are in {shared}, where NCCL hangs on some switches",
                "one subnet per twin (./spark setup-network), or pulumi config set --path fabric.hcas single",
            )
        if link.subnet.subnet_of(LINK_LOCAL):
            yield _warn(
                name,
                f"{link.address} is link-local and may change at a reboot",
                "./spark setup-network gives it a fixed one",
            )
    ports = {physical(link.interface) for link in links.values()}
    if len(ports) > 1:
        names = ", ".join(sorted(ports))
        yield _warn("fabric", f"the Sparks use different physical ports ({names})", "leave it if they are cabled so")


def _warn(at: str, wrong: str, fix: str) -> Problem:
    return Problem(at, wrong, fix, Severity.WARN)


def _off_rdma(settings: Settings, name: str, reason: str) -> Problem:
    wrong = f"traffic would not be on RDMA ({reason}): 10-20 times slower"
    if settings.fabric.rdma == "require":
        return Problem(name, wrong, "mend it, or allow sockets: pulumi config set --path fabric.rdma warn")
    return _warn(name, wrong, "./spark doctor says what is lacking")


def _twins_in_one_subnet(facts: NodeFacts, link: NodeLink) -> ipaddress.IPv4Network | None:
    netdevs = [port.netdev for port in up_ports(facts) if port.device in link.hcas]
    networks = [address.network for netdev in netdevs for address in addresses(facts, netdev)]
    return next((network for network in networks if networks.count(network) > 1), None)


def node_gid(settings: Settings, name: str) -> int | None:
    return _node(settings, name).fabric.gid_index


def _device(facts: NodeFacts, name: str) -> RdmaDevice | None:
    return next((device for device in facts.rdma if device.name == name), None)


def rate(device: RdmaDevice) -> int | None:
    """Gb/s from `200 Gb/sec (4X HDR)`; None where sysfs does not say."""
    match = re.match(r"(\d+)", device.rate)
    return int(match[1]) if match else None
