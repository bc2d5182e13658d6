"""What this machine's ssh_config and resolver know of the Sparks, asked before anything is reached.

OpenSSH reads ssh_config itself; the command provider does not, nor does it resolve mDNS. Sources: `ssh -G` of
ssh(1); pulumi-command, provider/pkg/provider/remote/connection.go, which is built without CGO.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.problems import Problem, Refused
from components.remote import openssh, ssh
from components.remote.ssh import Config, Way
from components.settings import KEY_FILE, USER, Node, Settings, Ssh

UNNAMED = "named-in-no-ssh-config"
"""An account that nobody has."""

KEY_FIX = "name your key with `pulumi config set --path ssh.privateKeyFile FILE`, or `agent` for a running ssh-agent"


def settled(settings: Settings) -> Settings:
    """With what ssh_config says of each Spark where the settings say nothing. Raises Refused."""
    return settings.model_copy(update={"nodes": settled_nodes(settings.nodes, settings.ssh)})


def settled_nodes(nodes: Sequence[Node], chosen: Ssh) -> tuple[Node, ...]:
    bare = asked(["-F", "none", "localhost"])
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        return tuple(pool.map(lambda node: _settled(node, chosen, bare), nodes))


def _settled(node: Node, chosen: Ssh, bare: Config) -> Node:
    """`bare`: what ssh does without any ssh_config, which is not said of anybody."""
    said = asked([node.host])
    named = [name for name in said.identities if said.identities != bare.identities]
    return node.model_copy(
        update={
            "address": node.address or (said.hostname if said.hostname != node.host.lower() else None),
            "user": node.user or chosen.user or _account(node.host, said, bare) or USER,
            "port": node.port or chosen.port or said.port,
            "private_key_file": node.private_key_file or chosen.private_key_file or _identity(named) or KEY_FILE,
        }
    )


def _account(host: str, said: Config, bare: Config) -> str | None:
    """The account that ssh_config names for this host.

    ssh prints this machine's where none is named, so one of that name is asked for again, with another at the files'
    end: what is named first holds. One that `Match final` or `canonical` alone names stays unseen.
    """
    if said.user == bare.user:
        lines = [*(f"Include {openssh.word(path)}" for path in files()), "Host *", f"User {UNNAMED}"]
        said = asked(["-F", "/dev/stdin", host], "\n".join(lines))
    return None if said.user == UNNAMED else said.user


def files() -> list[str]:
    """What ssh reads by itself, in this order. The home is that of passwd, whatever HOME says. Source: ssh.c."""
    return [f"{pwd.getpwuid(os.getuid()).pw_dir}/.ssh/config", "/etc/ssh/ssh_config"]


def _identity(named: Sequence[str]) -> str:
    """The first key file that is there. A public one stands for a key that an agent has."""
    there = [name for name in named if Path(name).expanduser().exists()]
    first = next(iter([*there, *named]), "")
    return "agent" if first.endswith(".pub") else first


def asked(words: Sequence[str], text: str = "") -> Config:
    """`ssh -G` for these words, `text` on its standard input. Raises Refused where there is no ssh, or its
    configuration is broken."""
    try:
        done = subprocess.run(["ssh", "-G", *words], capture_output=True, text=True, input=text)
    except FileNotFoundError:
        raise Refused([Problem("ssh", "no program `ssh` on this machine", "install OpenSSH's client")]) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise Refused([Problem("ssh", f"ssh -G {words[-1]}: {said}", "correct ~/.ssh/config")])
    return ssh.parse(done.stdout)


def keys(settings: Settings) -> dict[str, str]:
    """Node → the user's private key; '': a running ssh-agent has it. Raises Refused for one that can't be used."""
    found: dict[str, str] = {}
    problems: dict[str | None, Problem] = {}
    for node in settings.nodes:
        file = settings.ssh.login(node).key_file
        try:
            found[node.name] = private_key(file) if file else ""
        except ValueError as error:
            # All Sparks use the same one, mostly.
            problems[file] = Problem("ssh.privateKeyFile", str(error), KEY_FIX)
    if problems:
        raise Refused(list(problems.values()))
    return found


def private_key(file: str) -> str:
    """Raises ValueError saying why it can't be used."""
    path = Path(file).expanduser()
    try:
        key = path.read_text()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} holds no private key") from None
    if "PRIVATE KEY" not in key:
        raise ValueError(f"{path} holds no private key")
    if ssh.is_encrypted(key):
        raise ValueError(
            f"{path} needs a passphrase, and nobody can be asked: load it with `ssh-add {path}` and use the agent"
        )
    return key


def ways(settings: Settings, private: Mapping[str, str]) -> dict[str, Way]:
    """Node → how the command provider gets to it. Raises Refused for what it can't do.

    private   node → private key (see `keys`)
    """
    with ThreadPoolExecutor(max(1, len(settings.nodes))) as pool:
        looked = [pool.submit(_way, node, settings, private[node.name]) for node in settings.nodes]
    found: dict[str, Way] = {}
    problems: list[Problem] = []
    for number, (node, way) in enumerate(zip(settings.nodes, looked, strict=True)):
        try:
            found[node.name] = way.result()
        except ValueError as error:
            fix = "ssh_config: one host in ProxyJump, or none; or write an address in nodes[].host"
            problems.append(Problem(f"nodes[{number}].host", f"{node.host}: {error}", fix))
    if problems:
        raise Refused(problems)
    return found


def _way(node: Node, settings: Settings, private: str) -> Way:
    said, login = asked([node.host]), settings.ssh.login(node)
    if said.command:
        raise ValueError("ssh_config reaches it by ProxyCommand, which Pulumi's command provider does not know")
    through = _jump(said.jump) if said.jump else None
    return Way(
        # Behind another host it is that one that resolves the name.
        host=said.hostname if through else resolved(said.hostname),
        port=login.port,
        user=login.user,
        host_key=settings.ssh.host_keys[node.name],
        private_key=private,
        agent=None if private else _agent(said),
        through=through,
    )


def _jump(jump: str) -> Way:
    words = ssh.hop(jump)
    said = asked(words)
    if said.jump or said.command:
        raise ValueError(f"it is reached by {jump}, which is itself behind another; only one can be jumped from")
    return Way(
        resolved(said.hostname),
        said.port,
        said.user,
        known_key(said),
        private_key=_first_usable(said.identities),
        agent=_agent(said),
    )


def _first_usable(identities: Sequence[str]) -> str:
    """Private key; '': none without a passphrase, so it must be an agent's."""
    for file in identities:
        try:
            return private_key(file)
        except ValueError:
            continue
    return ""


def _agent(said: Config) -> str | None:
    if said.agent in ("", "SSH_AUTH_SOCK"):
        return None
    return os.path.expandvars(os.path.expanduser(said.agent))


def known_key(said: Config) -> str:
    """A host's key in the user's known_hosts. Raises ValueError where there is none that can be used."""
    name = said.known_as or (said.hostname if said.port == 22 else f"[{said.hostname}]:{said.port}")
    lines: list[str] = []
    for file in said.known_hosts:
        argv = ["ssh-keygen", "-F", name, "-f", str(Path(file).expanduser())]
        lines += subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
        for line in lines:
            words = line.split()
            if len(words) >= 3 and words[1] == kind and not line.startswith(("#", "@")):
                return " ".join(words[1:3])
    raise ValueError(f"no ed25519 key of {name} is in known_hosts: log in there once by hand")


def resolved(name: str) -> str:
    """A name that the command provider finds by itself stays, which outlives a change of address; others are resolved.

    Raises ValueError where nothing resolves it.
    """
    if _go_finds(name):
        return name
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{name} can't be resolved ({error})") from None
    return ssh.preferred(_zoned(entry[4]) for entry in found)


def _zoned(place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """An address with the interface that a link-local one is on."""
    host = str(place[0])
    if len(place) == 4 and place[3] and "%" not in host:
        return f"{host}%{socket.if_indextoname(place[3])}"
    return host


def _go_finds(name: str) -> bool:
    """Is it an address, or in /etc/hosts or DNS? All that Go's own resolver looks at; on a Mac it asks the system."""
    if sys.platform == "darwin" or ":" in name:
        return True
    try:
        return subprocess.run(["getent", "-s", "files dns", "ahosts", name], capture_output=True).returncode == 0
    except FileNotFoundError:
        return not name.lower().rstrip(".").endswith(".local")
