"""`./spark setup-guard`: what the Sparks say among themselves is reached by the fabric alone.

Some programs listen on every address and can't be told otherwise: torch's rendezvous, Ray, Swarm, Open MPI, and
whatever NCCL and Gloo let the kernel choose a port for. So each Spark gets a table of its own in nftables, which
turns away new connections to these ports, unless they come in by the fabric or from the Spark itself. It knows no
other ports, and is no firewall: what else a Spark has stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from components import ports
from components.facts import fabric, rdma
from components.facts.fabric import NodeLink
from components.facts.spark import NodeFacts
from components.plan.checks import used_ports
from components.scripts.contracts import Guard, GuardState
from components.settings import Node, Settings
from ops.project import Confirm
from ops.pulumi import CommandError
from ops.setup import look, show_difference
from ops.stack import Stack
from ops.sudo import Sudo

console = Console(highlight=False, soft_wrap=True)

Range = tuple[int, int]
"""Of ports, both ends included."""


@dataclass(frozen=True)
class Wall:
    """What one Spark's rules say."""

    interfaces: tuple[str, ...]
    """By which everything comes in: the fabric's, and its own."""

    opened: tuple[Range, ...]
    """Let in by every interface, though they may be among the closed."""

    closed: tuple[Range, ...]


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """In order and apart from each other: nft refuses what overlaps."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def inside(settings: Settings) -> list[Range]:
    """What the Sparks use among themselves, whatever the stack serves now."""
    moved = {ports.RAY: settings.ray.port}
    return [(moved.get(one.port, one.port), moved.get(one.port, one.last)) for one in ports.LISTENERS if one.inside]


def outside(settings: Settings, node: Node) -> list[int]:
    """SSH, and what is there for others: whatever the stack listens with that is not for the Sparks alone."""
    own = {port for first, last in inside(settings) for port in range(first, last + 1)}
    return [ports.SSH, settings.login(node.name).port, *(port for _, port in used_ports(settings) if port not in own)]


def interfaces(node: NodeFacts, link: NodeLink | None) -> list[str]:
    """The link's, and those of its RDMA devices: both halves of the QSFP port."""
    if link is None:
        return []
    return list(dict.fromkeys([link.interface, *(one.netdev for one in rdma.ports(node) if one.device in link.hcas)]))


def wall(
    settings: Settings, node: Node, facts: NodeFacts, link: NodeLink | None, chosen: Sequence[int], more: Iterable[int]
) -> Wall:
    """`chosen`: the range from which the kernel chooses ports there; `more`: ports to let in beside the stack's."""
    first, last = chosen
    opened = {*outside(settings, node), *more}
    return Wall(
        ("lo", *interfaces(facts, link)),
        merged((port, port) for port in opened),
        merged([*inside(settings), (first, last)]),
    )


def rules(one: Wall) -> str:
    """For `nft -f`: as one transaction, in place of what was there. Source: nft(8)."""
    names = ", ".join(f'"{name}"' for name in one.interfaces)
    return f"""# Written by ./spark setup-guard, undone with --undo.
table inet dgx_spark
delete table inet dgx_spark
table inet dgx_spark {{
	chain input {{
		type filter hook input priority filter - 5; policy accept;
		iifname {{ {names} }} accept
		meta l4proto {{ tcp, udp }} th dport {{ {_ports(one.opened)} }} accept
		meta l4proto {{ tcp, udp }} th dport {{ {_ports(one.closed)} }} ct state new counter drop
	}}
}}
"""


def _ports(ranges: Iterable[Range]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def shut(one: Wall, listening: Iterable[int]) -> list[int]:
    """Of the ports on which somebody listens there now, those that would be closed."""

    def among(port: int, ranges: Iterable[Range]) -> bool:
        return any(first <= port <= last for first, last in ranges)

    return [port for port in sorted(listening) if among(port, one.closed) and not among(port, one.opened)]


def wanted(
    cluster: Stack, facts: Mapping[str, NodeFacts], states: Mapping[str, GuardState], more: Collection[int]
) -> dict[str, Wall]:
    """Node → what its rules would say. Raises CommandError where there is no fabric to be told from other networks."""
    settings = cluster.settings
    if len(settings.nodes) == 1:
        raise CommandError("one Spark alone says nothing to others: there is nothing to guard")
    links, problems = fabric.detect(settings, facts)
    if problems:
        raise CommandError("\n".join(map(str, problems)))
    return {
        node.name: wall(settings, node, facts[node.name], links[node.name], states[node.name]["chosen"], more)
        for node in settings.nodes
    }


def holds(state: GuardState, text: str) -> bool:
    """Whether a Spark has these rules, or, with '', none."""
    return state["text"].strip() == text.strip() and state["active"] == bool(text)


def setup_guard(cluster: Stack, confirm: Confirm, *, more: Iterable[int] = (), undo: bool = False) -> None:
    """`more`: ports of others that stay open."""
    sudo = Sudo("./spark setup-guard")
    names = [node.name for node in cluster.settings.nodes]
    states = ask(cluster, dict.fromkeys(names, ""), sudo, write=False)
    texts = dict.fromkeys(names, "") if undo else _texts(cluster, states, more)
    changed = {name: text for name, text in texts.items() if not holds(states[name], text)}
    if not changed:
        console.print("[bold]·[/bold] nothing to change")
        return
    for name, text in changed.items():
        show_difference(name, states[name]["text"], text)
    what = "Take this away" if undo else "Load this, now and at every boot,"
    if confirm(f"{what} on {', '.join(changed)}, as root?"):
        ask(cluster, changed, sudo, write=True)
        console.print("[bold]·[/bold] done. Next: ./spark doctor")


def _texts(cluster: Stack, states: Mapping[str, GuardState], more: Iterable[int]) -> dict[str, str]:
    facts, problems = look(cluster.settings, cluster.stack)
    if problems:
        raise CommandError("\n".join(problems))
    walls = wanted(cluster, facts, states, list(more))
    for name, one in walls.items():
        closed = shut(one, others(facts[name], states[name]["chosen"]))
        if closed:
            numbers = ",".join(map(str, closed))
            console.print(
                f"[bold]·[/bold] {name}: nobody will reach {numbers} from other networks, where something listens now "
                f"(on it: sudo ss -tulpn); --open {numbers} leaves it as it is"
            )
    return {name: rules(one) for name, one in walls.items()}


def others(node: NodeFacts, chosen: Sequence[int]) -> list[int]:
    """Ports on which something of others listens there, as far as is known: while an engine runs, what the kernel has
    chosen is taken for its own. By UDP no engine speaks."""
    ours = [one for one in node.docker.containers if one.running and "dgx-spark.stack" in one.labels]
    own = {int(port) for one in ours for port in one.labels.get("dgx-spark.ports", "").split(",") if port}
    tcp = {port for port in node.listening if not (ours and chosen[0] <= port <= chosen[1])}
    return sorted((tcp | set(node.listening_udp)) - own)


def ask(cluster: Stack, texts: Mapping[str, str], sudo: Sudo, *, write: bool) -> dict[str, GuardState]:
    """Node → what was there before."""
    inputs = {name: Guard(text=text, write=write) for name, text in texts.items()}
    return cluster.ask("guard.py", inputs, root=sudo)
