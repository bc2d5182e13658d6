"""The root file system of the simulated Sparks: a Debian of its own, so that nothing of this machine is in them.

Made by debootstrap from the mirror that this machine's apt uses. All Sparks share it as the lower layer of an
overlay, and the container images are made from its programs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

from simulator.cache import kept
from simulator.layout import CACHE
from simulator.shell import run

SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

PACKAGES = (
    "ca-certificates",
    "containerd",
    "curl",
    "docker-buildx",
    "docker-cli",
    "docker.io",
    "fish",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "nftables",
    "openssh-client",
    "openssh-server",
    "procps",
    "python3",
    "python3-pip",
    "python3-yaml",
    "rsync",
    "runc",
    "sudo",
    "tini",
)
"""pip is for the images, yaml for the stand-in of netplan, fish for owners who like it."""

FINISH = """
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale
rm -f /etc/ssh/ssh_host_* /etc/machine-id /etc/resolv.conf /etc/hostname
"""
"""What is run in it at the end: no Spark shares its keys and its identity with another."""

DOCKERS = {"26": SUITE, "28": "sid"}
"""Docker's major version → the suite of Debian that its packages are taken from; all else is SUITE's."""

NEWER = """
# Where debootstrap has taken the rest from.
mirror=$(sed -n 's/^deb \\([^ ]*\\) .*/\\1/p' "$1/etc/apt/sources.list" | head -n 1)
cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
cat >"$1/etc/apt/sources.list.d/newer.list" <<END
deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $2 main
END
printf '%s\\n' '#!/bin/sh' 'exit 101' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
chroot "$1" apt-get update -qq
DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -qq -y --no-install-recommends --target-release "$2" \
    containerd docker-buildx docker-cli docker.io runc
rm "$1/usr/sbin/policy-rc.d"
"""
"""Run with a root file system and a suite: takes Docker from there. A mirror may keep an unstable of some
weeks ago, which is as good here."""

ALONE = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=SIGKILL",
)  # fmt: skip
"""In namespaces of its own, whose mounts and processes are gone when it ends, and it ends with this process."""

IN_ROOT = Path(__file__).resolve().parent / "in_root.sh"
BOOTSTRAP_LIMIT = 1800
"""Seconds."""


@cache
def root() -> Path:
    """Where it is; made on the first call on this machine, which takes two minutes."""
    return kept(_name(), _make)


def is_made() -> bool:
    return (CACHE / _name()).exists()


def with_docker(version: str) -> Path:
    """The root file system with that Docker; the one of SUITE is made from Debian's packages alone.

    Raises SimulatorError where the mirror has none.
    """
    if DOCKERS[version] == SUITE:
        return root()
    recipe = hashlib.sha256("\n".join([_name(), DOCKERS[version], NEWER]).encode()).hexdigest()[:12]
    return kept(f"root-docker{version}-{recipe}", partial(_add_docker, suite=DOCKERS[version]))


def _add_docker(folder: Path, suite: str) -> None:
    run(["cp", "-a", str(root()), str(folder)])
    words = ["sh", "-e", "-c", NEWER, "newer", str(folder), suite]
    run([*ALONE, *words], timeout=BOOTSTRAP_LIMIT, env={**proxies(), "DPKG_FORCE": "unsafe-io", "LC_ALL": "C"})
    run([*ALONE, "chroot", str(folder), "sh", "-e", "-c", FINISH])


def _name() -> str:
    recipe = "\n".join([SUITE, *PACKAGES, FINISH, os.uname().machine])
    return f"root-{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _make(folder: Path) -> None:
    words = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--include={','.join(PACKAGES)}"]
    # Not synced file by file: what is cut short is made anew.
    env = {**proxies(), "DPKG_FORCE": "unsafe-io", "LC_ALL": "C"}
    chosen = mirror()
    run([*ALONE, *words, SUITE, str(folder), *([chosen] if chosen else [])], timeout=BOOTSTRAP_LIMIT, env=env)
    run([*ALONE, "chroot", str(folder), "sh", "-e", "-c", FINISH])


def inside(*argv: str, timeout: float = 900, check: bool = True) -> str:
    """Run a program in a throw-away copy of the root file system, with this machine's network.

    The simulator's cache is at the same path in it: what is written there stays, nothing else does.
    """
    with tempfile.TemporaryDirectory() as scratch:
        words = [str(IN_ROOT), str(root()), scratch, str(CACHE), *argv]
        return run([*ALONE, *words], timeout=timeout, check=check, env=proxies())


def program(name: str) -> str:
    """Its path in the root file system. Raises FileNotFoundError."""
    for folder in ("/usr/bin", "/usr/sbin"):
        if os.path.lexists(f"{root()}{folder}/{name}"):
            return f"{folder}/{name}"
    raise FileNotFoundError(f"{name} is in none of the packages of simulator/rootfs.py")


def mirror() -> str:
    """The Debian mirror that this machine's apt is set up with; '' where it has none (on an Ubuntu): debootstrap knows
    Debian's usual one."""
    words = ["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    return chosen_mirror(_of_apt("apt-get", *words))


def _of_apt(*words: str) -> str:
    return run(words, check=False) if shutil.which(words[0]) else ""


def chosen_mirror(targets: str) -> str:
    """From lines `origin|label|URI`; origin and label are '' before the first `apt-get update`."""
    known = [line.split("|", 2) for line in targets.splitlines() if line.count("|") >= 2]
    named = [uri for origin, label, uri in known if (origin, label) == ("Debian", "Debian")]
    likely = [uri for origin, _, uri in known if not origin and uri.rstrip("/").endswith("/debian")]
    for uri in (*named, *likely):
        plain = _first_of_list(uri)
        if re.match(r"(https?|ftp|file):", plain):
            return plain.rstrip("/")
    return ""


def _first_of_list(uri: str) -> str:
    """Debian's cloud images name a file with mirrors, one a line; debootstrap wants one of them."""
    listed = re.fullmatch(r"mirror\+file:(?://)?(/.*?)/?", uri)
    if not listed:
        return uri
    lines = [line.split() for line in Path(listed[1]).read_text().splitlines()]
    return next((words[0] for words in lines if words and not words[0].startswith("#")), "")


def proxies() -> dict[str, str]:
    """apt's proxies as environment variables, which debootstrap's wget, apt and pip all read."""
    shown = _of_apt("apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy")
    found = dict(re.findall(r"^(\w+)='(.*)'$", shown, re.MULTILINE))
    return {name: value for name, value in found.items() if value != "DIRECT"}
