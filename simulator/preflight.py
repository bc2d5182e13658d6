"""Can Sparks be simulated on this machine? Says exactly what is lacking and how to get it."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from simulator import cache
from simulator.layout import CACHE
from simulator.rootfs import KEYRING
from simulator.shell import SimulatorError, run

PACKAGES = {
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "tc": "iproute2",
    "pgrep": "procps",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "wget": "wget",
}
"""Program → the Debian/Ubuntu package that has it. What a Spark needs is in its own root file system (rootfs.py)."""

ROOM = 4
"""GiB that the cache needs on the first run; about 2 stay."""

PATIENCE = 300
"""Seconds for another apt of this machine to end."""

CAPABILITIES = {"SYS_ADMIN": 21, "NET_ADMIN": 12, "SYS_CHROOT": 18, "MKNOD": 27}
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing_packages() -> list[str]:
    missing = {package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)}
    if not Path(KEYRING).exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def install(packages: list[str]) -> None:
    """Debian's packages, without letting them start a daemon on this machine."""
    if not packages:
        return
    command = "apt-get install --no-install-recommends " + " ".join(packages)
    if not shutil.which("apt-get"):
        raise SimulatorError(f"missing: {', '.join(packages)} (Debian's names). Install them, then run this again.")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        # invoke-rc.d asks this file; 101 means "not allowed": what the packages bring stays off.
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        run(["apt-get", "update"], timeout=300)
        patient = ["-o", f"DPkg::Lock::Timeout={PATIENCE}"]
        run(["apt-get", *patient, "install", "-y", "--no-install-recommends", *packages], timeout=600)
    except SimulatorError as error:
        raise SimulatorError(f"{command} failed:\n{error}") from None
    finally:
        if ours:
            policy.unlink()


def obstacles() -> Iterator[str]:
    """What stands in the way and no package can mend, one line each."""
    if sys.platform != "linux":
        yield f"the simulator needs Linux (this is {sys.platform}); use a Linux machine or virtual machine"
        return
    if os.geteuid() != 0:
        yield "not root: run it with sudo, or in a virtual machine of your own"
        return
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
    lacking = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if lacking:
        yield f"no CAP_{', CAP_'.join(lacking)}: inside a container, start it with --privileged"
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        trials = (("new namespaces", _namespaces), (f"an overlay over {CACHE}", lambda: _overlay(str(CACHE), scratch)))
        for what, trial in trials:
            problem = _in_child(trial)
            if problem:
                yield f"{what}: {problem}"
    free = shutil.disk_usage(CACHE).free >> 30
    if free < ROOM and not any(CACHE.glob("docker-*")):
        yield f"{free} GiB are free in {CACHE}, and {ROOM} are needed: make room, or set XDG_CACHE_HOME"
    cgroup = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
    probe = cgroup / f"spark-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        yield f"cgroups can't be made under {cgroup}: {error.strerror}"


def _in_child(trial: Callable[[], None]) -> str:
    """'' if `trial` works in a forked child, else why not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trial()
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _namespaces() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET))


def _overlay(lower: str, scratch: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _namespaces()
    _call(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    _call(libc.mount(b"spark", scratch.encode(), b"tmpfs", 0, None))
    for folder in ("upper", "work", "root"):
        os.mkdir(f"{scratch}/{folder}")
    options = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    _call(libc.mount(b"overlay", f"{scratch}/root".encode(), b"overlay", 0, options.encode()))


def ensure() -> None:
    """Install what is missing, or raise with one line per obstacle."""
    found = list(obstacles())
    if not found:
        # Of two simulations that begin at once, apt and policy-rc.d are one's.
        with cache.lock("packages"):
            install(missing_packages())
        found = [f"missing program after the install: {package}" for package in missing_packages()]
    if found:
        raise SimulatorError("Sparks can't be simulated here:\n" + "\n".join(f"  - {line}" for line in found))
