"""Where the simulator keeps its files, and the addresses it hands out."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def cache_of(environment: Mapping[str, str]) -> Path:
    """The simulator's folder in the user's cache directory, as the XDG specification has it."""
    named = environment.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored.
    base = Path(named) if named.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".cache"
    return base / "dgx-spark-simulator"


ROOT = Path(__file__).resolve().parent.parent
CACHE = cache_of(os.environ)
"""Outlives `down`, and is shared by all checkouts."""

NAMED = "SPARK_SIMULATION"
"""Environment variable: '' is this machine's simulation; another name is one beside it, in namespaces of its own
(simulator/apart.py)."""

_SUFFIX = f"-{os.environ[NAMED]}" if os.environ.get(NAMED) else ""

RUN = ROOT / ".sim" / f"run{_SUFFIX}"
"""Everything of the Sparks that are up."""

CLAIM = Path(f"/run/dgx-spark-simulator{_SUFFIX}")
"""Names the checkout whose Sparks are up: names and addresses are one per network namespace."""

MANAGEMENT = ipaddress.ip_network("10.77.0.0/24")
GATEWAY = "10.77.0.1"
"""This machine's address on the management bridge; the local model hub listens here."""

BRIDGE = "br-spark"
FABRIC_NAMESPACE = "spark-fabric"
HUB_PORT = 8123
USER = "nvidia"
"""The account the program logs in with, as on a Spark set up by NVIDIA's wizard."""

KEY = RUN / "keys" / "id_ed25519"

TWINS = (("enp1s0f{port}np{port}", "rocep1s0f{port}"), ("enP2p1s0f{port}np{port}", "roceP2p1s0f{port}"))
"""(netdev, RDMA device) of the two PCIe halves of one QSFP port, as DGX OS names them."""


PASSWORD = "simulated"
"""Of that account, for sudo and sshd where a Spark's traits have them ask."""


@dataclass(frozen=True)
class Traits:
    """What one simulated Spark is like. The defaults are a well-kept real one; each other value is met in the field."""

    docker: str = "26"
    """Docker's major version, of those in rootfs.DOCKERS."""

    nvidia_runtime: bool = True
    """dockerd knows a runtime `nvidia`. Without it containers get the GPU by `--gpus` alone."""

    containerd_images: bool = False
    """dockerd keeps images in containerd's store, as new installations of Docker 29 do; it begins empty."""

    live_restore: bool = False
    """Containers outlive dockerd."""

    nvidia_hook: bool = True
    """NVIDIA's hook is on dockerd's PATH, by which it knows `--gpus`."""

    gpus: int = 1
    """That nvidia-smi lists; the first is the GB10."""

    nvidia_smi_exit: int = 0
    """With 9 or 18 nvidia-smi says what is wrong on its standard output, and no more."""

    docker_flags: tuple[str, ...] = ()
    """dockerd's arguments in docker.service; it refuses to start where daemon.json sets the same."""

    sudo_asks: bool = False
    """sudo wants PASSWORD, as on a Spark that nobody changed."""

    ssh_passwords: bool = False
    """sshd takes PASSWORD as well as keys."""

    ssh_port: int = 22


@dataclass(frozen=True)
class Spark:
    """One simulated Spark; `index` counts from 1."""

    index: int
    traits: Traits = Traits()

    @property
    def name(self) -> str:
        return f"spark-{self.index}"

    @property
    def address(self) -> str:
        """Management address (the RJ-45, enP7s7)."""
        return str(MANAGEMENT[10 + self.index])

    @property
    def home(self) -> Path:
        return RUN / self.name

    @property
    def cgroup(self) -> str:
        """Parent of its containers' cgroups, which are one tree per machine."""
        return f"sim{_SUFFIX}-{self.name}"

    @property
    def gpu_uuid(self) -> str:
        return f"GPU-{self.index:08x}-1111-2222-3333-444444444444"

    @property
    def infiniband(self) -> Path:
        """Stands in for the Spark's /sys/class/infiniband; edited while it runs to move ports and GIDs."""
        return self.home / "infiniband"

    @property
    def knobs(self) -> Path:
        """JSON that the engine stand-ins on this Spark read when they start (see standins/standin/knobs.py)."""
        return self.home / "knobs.json"

    def fabric_address(self, twin: int) -> str:
        """IPv4 of one twin; the twins sit in different subnets, as NVIDIA's playbook asks."""
        return f"192.168.{177 + twin}.{10 + self.index}"


def sparks(count: int) -> list[Spark]:
    return [Spark(index) for index in range(1, count + 1)]
