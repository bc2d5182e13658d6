"""`./spark init`, `setup-ssh` and `setup-network`: from Sparks out of the box to a stack file for `pulumi up`."""

from __future__ import annotations

import difflib
import ipaddress
import json
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from components.facts import rdma
from components.facts.spark import NodeFacts
from components.facts.usable import unusable
from components.problems import Refused
from components.remote import ask, parcel, reach
from components.remote.ssh import Config
from components.scripts.contracts import FoundNetplan, Netplan
from components.settings import PROJECT, Node, Settings, Ssh, load
from ops.project import ORG_OF_FILES, Confirm, short
from ops.pulumi import CommandError
from ops.stack import Stack, terminal
from ops.stack import look as look_at
from ops.sudo import Sudo

console = Console(highlight=False, soft_wrap=True)

SCAN_LIMIT = 20
"""Seconds for a Spark to show its host key."""

SUBNETS = ("192.168.177.0/24", "192.168.178.0/24")
"""One per twin; as in NVIDIA's and the community's recipes for pairs."""

FIRST = 11
"""Last number of the head's fabric address; the others follow."""

MTU = 9000

EXAMPLE = "REPLACEWITHTHEKEYOF"
"""In the host keys of Pulumi.head-worker.yaml as it comes: nothing connects with it, and it may be written anew."""


@dataclass(frozen=True)
class Found:
    """A machine that answers at an address."""

    name: str
    host: str
    key: str
    """Its public ed25519 host key, `ssh-ed25519 AAAA…`."""

    fingerprint: str


def at(hosts: Sequence[str], chosen: Ssh) -> tuple[Node, ...]:
    """The Sparks at these hosts, each once, with what ssh_config says of them. Raises CommandError."""
    try:
        nodes = [Node(name=f"spark-{number}", host=host) for number, host in enumerate(dict.fromkeys(hosts), 1)]
        return reach.settled_nodes(nodes, chosen)
    except ValidationError as error:
        raise CommandError(f"{error.errors()[0]['input']!r} is no address or name of a host") from None
    except Refused as refused:
        raise CommandError(str(refused)) from None


def scan(node: Node, chosen: Ssh) -> Found:
    """Its host key, as it shows it now. Raises CommandError where nothing answers."""
    place, port = node.address or node.host, chosen.login(node).port
    config = reach.asked([node.host])
    if config.jump or config.command:
        return _known(node, config)
    argv = ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(port), place]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SCAN_LIMIT)
    keys = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if " ssh-ed25519 " in line]
    if not keys:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise CommandError(
            f"{node.host}: no SSH server answers on port {port} ({said}): is it on, and is that its address?"
        )
    return _found(node, keys[0].strip())


def _known(node: Node, config: Config) -> Found:
    """Behind another host, where ssh-keyscan can't look: as the user's known_hosts has it."""
    try:
        return _found(node, reach.known_key(config))
    except ValueError as error:
        raise CommandError(f"{node.host}: {error}") from None


def _found(node: Node, key: str) -> Found:
    shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=key, capture_output=True, text=True, check=True)
    return Found(node.name, node.host, key, shown.stdout.split()[1])


def settings_of(found: Sequence[Found], chosen: Ssh) -> Settings:
    """Raises Refused for what can't be (two of one address, a name that is none)."""
    nodes = [{"name": one.name, "host": one.host} for one in found]
    keys = {one.name: one.key for one in found}
    login = {**chosen.model_dump(by_alias=True, exclude_none=True), "hostKeys": keys}
    raw = {"nodes": json.dumps(nodes), "ssh": json.dumps(login), "engine": "vllm", "model": "gpt-oss-120b"}
    return reach.settled(load({f"{PROJECT}:{key}": value for key, value in raw.items()}))


def init(
    folder: Path,
    stack: str,
    hosts: Sequence[str],
    login: Ssh,
    confirm: Confirm,
    *,
    chosen: tuple[str, str] = ("vllm", "gpt-oss-120b"),
    force: bool = False,
) -> Path:
    """Write Pulumi.<stack>.yaml for the Sparks at `hosts`, the head first, after a look at each.

    login    what of it is not as ssh_config says
    chosen   engine, model
    force    also over a file that is there already and is not the example
    Raises CommandError where a Spark can't be reached, or is not confirmed, or there is such a file.
    """
    path = folder / f"Pulumi.{short(stack)}.yaml"
    if path.exists() and not force and EXAMPLE not in path.read_text():
        raise CommandError(f"{path.name} is there already: choose another name, or --force to write it anew")
    found = [scan(node, login) for node in at(hosts, login)]
    for one in found:
        console.print(f"{one.name} at {one.host} shows the host key {one.fingerprint}")
    console.print("On each Spark itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if not confirm("Are these their keys?"):
        raise CommandError("nothing was written")
    try:
        settings = settings_of(found, login)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    known, problems = look(settings, stack)
    if problems:
        raise CommandError(
            "\n".join([*problems, "nothing was written; `./spark setup-ssh` puts your key on the Sparks"])
        )
    for name, node in known.items():
        describe(name, node, settings)
    path.write_text(text(found, login, *chosen))
    console.print(f"[bold]·[/bold] {path.name} is written. Next: pulumi stack init {stack} && pulumi preview")
    return path


def look(settings: Settings, stack: str) -> tuple[dict[str, NodeFacts], list[str]]:
    """Facts of each Spark, and why some can't be asked."""
    known, problems = look_at(settings, f"{ORG_OF_FILES}/{PROJECT}/{stack}")
    return known, [str(problem) for problem in problems]


def describe(name: str, node: NodeFacts, settings: Settings) -> None:
    gpu = node.gpus[0].name if node.gpus else "no GPU seen"
    ports = ", ".join(port.netdev for port in rdma.up_ports(node)) or "no QSFP port is up"
    console.print(f"{name}: {node.hostname}, {gpu}, {node.memory / 2**30:.0f} GiB, {ports}")
    (config,) = [one for one in settings.nodes if one.name == name]
    for problem in unusable(config, node, settings):
        console.print(f"  {problem.wrong}\n  → {problem.fix}")


def text(found: Sequence[Found], login: Ssh, engine: str, model: str) -> str:
    """The stack's file, with what one may want to change beside it."""
    inputs = login.model_dump(by_alias=True, exclude_none=True, exclude={"host_keys"})
    parts = (
        "# The first Spark is the head: it downloads, and it serves the API.",
        {"nodes": [{"name": one.name, "host": one.host} for one in found]},
        "# The host keys are pinned: no other machine can answer in a Spark's place.",
        {"ssh": {**inputs, "hostKeys": {one.name: one.key for one in found}}},
        "# vllm, sglang or trtllm",
        {"engine": engine},
        "# One of ./spark models, or any Hugging Face repository: ORG/NAME",
        {"model": model},
        "# For gated models:    pulumi config set --secret hfToken hf_…",
        "# To protect the API:  pulumi config set --secret apiKey …",
    )
    lines = "".join(f"{part}\n" if isinstance(part, str) else _as_yaml(part) for part in parts)
    return "# Written by ./spark init. Every setting: docs/configuration.md\nconfig:\n" + textwrap.indent(lines, "  ")


def _as_yaml(part: Mapping[str, object]) -> str:
    return yaml.safe_dump({f"{PROJECT}:{key}": value for key, value in part.items()}, sort_keys=False, width=1000)


def setup_ssh(nodes: Sequence[Node], chosen: Ssh, confirm: Confirm, *, known_hosts: str = "~/.ssh/known_hosts") -> None:
    """This machine's key on every Spark, and the account in the group `docker`. Asks for passwords on this terminal.

    nodes   with what ssh_config says of them (`at`)
    """
    sudo = Sudo("./spark setup-ssh")
    trust = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known_hosts}"]
    for node in nodes:
        login = chosen.login(node)
        if login.key_file is None:
            raise CommandError("ssh.privateKeyFile is `agent`: add the agent's key to the Sparks with ssh-copy-id")
        private = _key(Path(login.key_file).expanduser(), confirm)
        words = ["-p", str(login.port), "-i", str(private), "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5"]
        quiet = ["ssh", "-o", "BatchMode=yes", *words, *trust, f"{login.user}@{node.host}"]
        if subprocess.run([*quiet, "true"], capture_output=True).returncode:
            console.print(f"[bold]·[/bold] {node.host}: your password on it, once, for ssh-copy-id")
            copy = ["-i", f"{private}.pub", "-p", str(login.port), *trust, f"{login.user}@{node.host}"]
            if terminal(["ssh-copy-id", *copy]):
                raise CommandError(f"{node.host}: the key could not be copied (see above)")
        _docker_group(node.host, login.user, quiet, sudo, confirm)


def _key(private: Path, confirm: Confirm) -> Path:
    """The user's key, made where there is none."""
    if not private.exists():
        if not confirm(f"There is no key {private}. Make one?"):
            raise CommandError("nothing was changed")
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)], check=True)
    return private


def _docker_group(host: str, user: str, login: Sequence[str], sudo: Sudo, confirm: Confirm) -> None:
    """`login`: the words of ssh that log in without a question."""
    if subprocess.run([*login, "id -nG | tr ' ' '\\n' | grep -qx docker"], capture_output=True).returncode == 0:
        console.print(f"[bold]·[/bold] {host}: {user} logs in, and may use Docker")
        return
    if not confirm(f"{host}: put {user} into the group docker (which is as good as root)?"):
        return

    def attempt(_host: str, password: str | None) -> subprocess.CompletedProcess[str]:
        how = parcel.SUDO if password is None else parcel.SUDO_ASKS
        typed = "" if password is None else f"{password}\n"
        command = [*login, f"{how}usermod -aG docker {user}"]
        return subprocess.run(command, input=typed, capture_output=True, text=True)

    done = sudo.run({host: user}, attempt, lambda done: bool(done.returncode) and ask.is_sudo(done.stderr))[host]
    if done.returncode:
        raise CommandError(f"{host}: {ask.last(done.stderr) or 'sudo failed'}")
    console.print(f"[bold]·[/bold] {host}: {user} logs in, and may use Docker from the next login on")


def addresses(count: int, subnets: Sequence[str] = SUBNETS) -> list[tuple[str, ...]]:
    """Spark → its address on each twin, with prefix. Raises CommandError where a subnet has no room."""
    networks = []
    for subnet in subnets:
        try:
            networks.append(ipaddress.IPv4Network(subnet))
        except ValueError as error:
            raise CommandError(f"{subnet} is no subnet: {error}") from None
    if len(networks) > 1 and networks[0].overlaps(networks[1]):
        raise CommandError("the twins need a subnet each: NCCL hangs on switches where they share one")
    if any(FIRST + count >= network.num_addresses - 1 for network in networks):
        raise CommandError(f"{', '.join(subnets)}: too small for {count} Sparks from number {FIRST} on")
    return [tuple(f"{network[FIRST + n]}/{network.prefixlen}" for network in networks) for n in range(count)]


def netplan(twins: Sequence[str], own: Sequence[str]) -> str:
    """The file for one Spark; `twins` and `own`: interfaces and their addresses."""
    ethernets = {
        name: {"dhcp4": False, "dhcp6": False, "mtu": MTU, "addresses": [address]}
        for name, address in zip(twins, own, strict=False)
    }
    note = "# The link between the DGX Sparks; by ./spark setup-network, undone with --undo.\n"
    return note + yaml.safe_dump({"network": {"version": 2, "ethernets": ethernets}}, sort_keys=False)


def cabled(node: NodeFacts, name: str) -> list[str]:
    """Both interfaces of the port with the cable. Raises CommandError where none is up."""
    ports = sorted(rdma.up_ports(node), key=lambda port: rdma.preference(node, port))
    if not ports:
        raise CommandError(f"{name}: no QSFP port is up: is the cable in on both ends? (ibdev2netdev)")
    return [port.netdev for port in rdma.twins(ports[0], ports)]


def setup_network(of: Stack, confirm: Confirm, *, subnets: Sequence[str] = SUBNETS, undo: bool = False) -> None:
    """Addresses and MTU 9000 on both twins of every Spark, after the differences were shown and confirmed."""
    sudo = Sudo("./spark setup-network")
    inputs = undone(of) if undo else wanted_networks(of, subnets)
    before = _netplan(of, inputs, sudo, write=False)
    changed = [
        name
        for name, found in before.items()
        if found["before"].strip() != inputs[name]["text"].strip() or (undo and found["aside"])
    ]
    movable = {name: [one["path"] for one in found["others"] if one["alone"]] for name, found in before.items()}
    for name, found in before.items():
        if name in changed or movable[name]:
            show_network(name, inputs[name]["text"], found)
    if not changed and not any(movable.values()):
        console.print("[bold]·[/bold] nothing to change")
        return
    if changed and not confirm(f"Write this on {', '.join(changed)}, as root, and run `netplan apply` there?"):
        return
    for name, paths in asides(movable, confirm).items():
        inputs[name]["aside"] = paths
    order = {name: one for name, one in inputs.items() if name in changed or one["aside"]}
    if order:
        _netplan(of, order, sudo, write=True)
    console.print("[bold]·[/bold] done. Next: ./spark doctor")


def undone(of: Stack) -> dict[str, Netplan]:
    """Node → input of scripts/netplan.py that takes away what is ours."""
    return {node.name: Netplan(text="", ports=[], write=False, aside=[]) for node in of.settings.nodes}


def wanted_networks(of: Stack, subnets: Sequence[str]) -> dict[str, Netplan]:
    """Node → input of scripts/netplan.py. Raises CommandError for Sparks that can't be asked or have no cable."""
    known, problems = look(of.settings, of.stack)
    if problems:
        raise CommandError("\n".join(problems))
    rows = addresses(len(known), subnets)
    return {
        name: Netplan(
            text=netplan(cabled(node, name), own),
            ports=[port.netdev for port in rdma.ports(node)],
            write=False,
            aside=[],
        )
        for (name, node), own in zip(known.items(), rows, strict=True)
    }


def asides(movable: Mapping[str, Sequence[str]], confirm: Confirm) -> dict[str, list[str]]:
    """Node → files of others to move aside there, those that the user has agreed to."""
    agreed: dict[str, list[str]] = {}
    for path in sorted({path for paths in movable.values() for path in paths}):
        names = [name for name, paths in movable.items() if path in paths]
        if confirm(f"Move {path} aside on {', '.join(names)}? --undo puts it back."):
            for name in names:
                agreed.setdefault(name, []).append(path)
    return agreed


def show_network(name: str, text: str, found: FoundNetplan) -> None:
    """What would change, and what stands against it in files of others."""
    show_difference(name, found["before"], text)
    for path in found["aside"] if not text else ():
        console.print(f"{name}: {path} comes back", markup=False)
    for one in found["others"]:
        lists = sorted({key for keys in one["lists"].values() for key in keys})
        added = f", and netplan adds its {' and '.join(lists)} to ours" if lists else ", and netplan merges both"
        by_hand = "" if one["alone"] else ": take it out there by hand, since the file is about others too"
        console.print(f"{name}: {one['path']} names {', '.join(one['lists'])} too{added}{by_hand}", markup=False)


def _netplan(of: Stack, inputs: Mapping[str, Netplan], sudo: Sudo, *, write: bool) -> dict[str, FoundNetplan]:
    return of.ask("netplan.py", {name: {**one, "write": write} for name, one in inputs.items()}, root=sudo)


def show_difference(name: str, before: str, after: str) -> None:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name}: now", f"{name}: then", lineterm="", n=1
    )
    console.print("\n".join(lines), markup=False)
