"""`./spark init`, `setup-ssh` and `setup-network`: from Sparks out of the box to a stack file for `pulumi up`."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from components.facts import rdma
from components.facts.spark import NodeFacts
from components.facts.usable import unusable
from components.problems import Refused
from components.settings import PROJECT, Settings, Ssh, load
from ops.project import Confirm
from ops.pulumi import CommandError
from ops.stack import Stack, terminal
from ops.stack import look as look_at

console = Console(highlight=False, soft_wrap=True)

SCAN_LIMIT = 20
"""Seconds for a Spark to show its host key."""

SUBNETS = ("192.168.177.0/24", "192.168.178.0/24")
"""One per twin; as in NVIDIA's and the community's recipes for pairs."""

FIRST = 11
"""Last number of the head's fabric address; the others follow."""

MTU = 9000


@dataclass(frozen=True)
class Found:
    """A machine that answers at an address."""

    name: str
    host: str
    key: str
    """Its public ed25519 host key, `ssh-ed25519 AAAA…`."""

    fingerprint: str


def scan(name: str, host: str, port: int) -> Found:
    """Its host key, as it shows it now. Raises CommandError where nothing answers."""
    argv = ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(port), host]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SCAN_LIMIT)
    keys = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if " ssh-ed25519 " in line]
    if not keys:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise CommandError(f"{host}: no SSH server answers on port {port} ({said}): is it on, and is that its address?")
    shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=keys[0], capture_output=True, text=True, check=True)
    return Found(name, host, keys[0].strip(), shown.stdout.split()[1])


def settings_of(found: Sequence[Found], user: str, port: int, key_file: str) -> Settings:
    """Raises Refused for what can't be (two of one address, a name that is none)."""
    nodes = [{"name": one.name, "host": one.host} for one in found]
    keys = {one.name: one.key for one in found}
    login = {"user": user, "port": port, "privateKeyFile": key_file, "hostKeys": keys}
    raw = {"nodes": json.dumps(nodes), "ssh": json.dumps(login), "engine": "vllm", "model": "gpt-oss-120b"}
    return load({f"{PROJECT}:{key}": value for key, value in raw.items()})


def init(
    folder: Path,
    stack: str,
    hosts: Sequence[str],
    login: tuple[str, int, str],
    confirm: Confirm,
    *,
    chosen: tuple[str, str] = ("vllm", "gpt-oss-120b"),
    force: bool = False,
) -> Path:
    """Write Pulumi.<stack>.yaml for the Sparks at `hosts`, the head first, after a look at each.

    login    user, port, private key file
    chosen   engine, model
    Raises CommandError where a Spark can't be reached, or is not confirmed, or the file is there already.
    """
    path = folder / f"Pulumi.{stack}.yaml"
    if path.exists() and not force:
        raise CommandError(f"{path.name} is there already: choose another name, or --force to write it anew")
    user, port, key_file = login
    found = [scan(f"spark-{number}", host, port) for number, host in enumerate(hosts, 1)]
    for one in found:
        console.print(f"{one.name} at {one.host} shows the host key {one.fingerprint}")
    console.print("On each Spark itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if not confirm("Are these their keys?"):
        raise CommandError("nothing was written")
    try:
        settings = settings_of(found, user, port, key_file)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    known, problems = look(settings, stack)
    if problems:
        raise CommandError(
            "\n".join([*problems, "nothing was written; `./spark setup-ssh` puts your key on the Sparks"])
        )
    for name, node in known.items():
        describe(name, node, settings)
    path.write_text(text(found, settings, *chosen))
    console.print(f"[bold]·[/bold] {path.name} is written. Next: pulumi stack init {stack} && pulumi preview")
    return path


def look(settings: Settings, stack: str) -> tuple[dict[str, NodeFacts], list[str]]:
    """Facts of each Spark, and why some can't be asked."""
    known, problems = look_at(settings, f"organization/{PROJECT}/{stack}")
    return known, [str(problem) for problem in problems]


def describe(name: str, node: NodeFacts, settings: Settings) -> None:
    gpu = node.gpus[0].name if node.gpus else "no GPU seen"
    ports = ", ".join(port.netdev for port in rdma.up_ports(node)) or "no QSFP port is up"
    console.print(f"{name}: {node.hostname}, {gpu}, {node.memory / 2**30:.0f} GiB, {ports}")
    (config,) = [one for one in settings.nodes if one.name == name]
    for problem in unusable(config, node, settings):
        console.print(f"  {problem.wrong}\n  → {problem.fix}")


def text(found: Sequence[Found], settings: Settings, engine: str, model: str) -> str:
    """The stack's file, with what one may want to change beside it."""
    nodes = "".join(f"    - name: {one.name}\n      host: {one.host}\n" for one in found)
    keys = "".join(f"      {one.name}: {one.key}\n" for one in found)
    port = f"    port: {settings.ssh.port}\n" if settings.ssh.port != Ssh().port else ""
    return (
        "# Written by ./spark init. Every setting: docs/configuration.md\n"
        "config:\n"
        "  # The first Spark is the head: it downloads, and it serves the API.\n"
        f"  {PROJECT}:nodes:\n{nodes}"
        f"  {PROJECT}:ssh:\n"
        f"    user: {settings.ssh.user}\n{port}"
        f"    privateKeyFile: {settings.ssh.private_key_file}\n"
        "    # Pinned: no other machine can answer in a Spark's place.\n"
        f"    hostKeys:\n{keys}"
        f"  {PROJECT}:engine: {engine} # vllm, sglang or trtllm\n"
        f"  {PROJECT}:model: {model} # ./spark models, or any Hugging Face repository: ORG/NAME\n"
        "  # For gated models:    pulumi config set --secret hfToken hf_…\n"
        "  # To protect the API:  pulumi config set --secret apiKey …\n"
    )


def setup_ssh(
    hosts: Sequence[str], login: tuple[str, int, str], confirm: Confirm, *, known_hosts: str = "~/.ssh/known_hosts"
) -> None:
    """This machine's key on every Spark, and the account in the group `docker`. Asks for passwords on this terminal.

    login   user, port, private key file
    """
    user, port, key_file = login
    private = Path(key_file).expanduser()
    if not private.exists():
        if not confirm(f"There is no key {private}. Make one?"):
            raise CommandError("nothing was changed")
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)]
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(make, check=True)
    for host in hosts:
        trust = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known_hosts}"]
        words = ["-p", str(port), "-i", str(private), "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5"]
        spark = ["ssh", *words, *trust, f"{user}@{host}"]
        quiet = ["ssh", "-o", "BatchMode=yes", *spark[1:]]
        if subprocess.run([*quiet, "true"], capture_output=True).returncode:
            console.print(f"[bold]·[/bold] {host}: your password on it, once, for ssh-copy-id")
            if terminal(["ssh-copy-id", "-i", f"{private}.pub", "-p", str(port), *trust, f"{user}@{host}"]):
                raise CommandError(f"{host}: the key could not be copied (see above)")
        if subprocess.run([*quiet, "id -nG | tr ' ' '\\n' | grep -qx docker"], capture_output=True).returncode == 0:
            console.print(f"[bold]·[/bold] {host}: {user} logs in, and may use Docker")
            continue
        if not confirm(f"{host}: put {user} into the group docker (which is as good as root)?"):
            continue
        tty = ["-t"] if os.isatty(0) else []
        if terminal(["ssh", *tty, *spark[1:], f"sudo usermod -aG docker {user}"]):
            raise CommandError(f"{host}: sudo failed (see above)")
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
    parts = "".join(
        f"    {name}:\n      dhcp4: false\n      dhcp6: false\n      mtu: {MTU}\n      addresses:\n      - {address}\n"
        for name, address in zip(twins, own, strict=False)
    )
    note = "# The link between the DGX Sparks; by ./spark setup-network, undone with --undo.\n"
    return f"{note}network:\n  version: 2\n  ethernets:\n{parts}"


def cabled(node: NodeFacts, name: str) -> list[str]:
    """Both interfaces of the port with the cable. Raises CommandError where none is up."""
    ports = sorted(rdma.up_ports(node), key=lambda port: rdma.preference(node, port))
    if not ports:
        raise CommandError(f"{name}: no QSFP port is up: is the cable in on both ends? (ibdev2netdev)")
    return [port.netdev for port in rdma.twins(ports[0], ports)]


def setup_network(of: Stack, confirm: Confirm, *, subnets: Sequence[str] = SUBNETS, undo: bool = False) -> None:
    """Addresses and MTU 9000 on both twins of every Spark, after the differences were shown and confirmed."""
    if undo:
        wanted = dict.fromkeys((node.name for node in of.settings.nodes), "")
    else:
        known, problems = look(of.settings, of.stack)
        if problems:
            raise CommandError("\n".join(problems))
        rows = addresses(len(known), subnets)
        wanted = {name: netplan(cabled(node, name), own) for (name, node), own in zip(known.items(), rows, strict=True)}
    before = _netplan(of, wanted, write=False)
    changed = [name for name, text in wanted.items() if before[name]["before"].strip() != text.strip()]
    for name in changed:
        show_difference(name, before[name]["before"], wanted[name])
        for path in before[name]["others"]:
            console.print(f"{name}: {path} names these interfaces too; netplan merges both")
    if not changed:
        console.print("[bold]·[/bold] nothing to change")
        return
    if not confirm(f"Write this on {', '.join(changed)}, as root, and run `netplan apply` there?"):
        return
    _netplan(of, {name: wanted[name] for name in changed}, write=True)
    console.print("[bold]·[/bold] done. Next: ./spark doctor")


def _netplan(of: Stack, texts: Mapping[str, str], *, write: bool) -> dict[str, Any]:
    given = {name: {"text": text, "write": write} for name, text in texts.items()}
    return of.ask("netplan.py", given, root=True)


def show_difference(name: str, before: str, after: str) -> None:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name}: now", f"{name}: then", lineterm="", n=1
    )
    console.print("\n".join(lines), markup=False)


def key_of(settings: Settings) -> str:
    """The key file that the stack names. Raises CommandError where an agent has the keys."""
    if settings.ssh.key_file is None:
        raise CommandError("ssh.privateKeyFile is `agent`: add the agent's key to the Sparks with ssh-copy-id")
    return settings.ssh.key_file
