"""What a Spark says of itself, typed; read at every preview and up by scripts/probe.py.

Pure: text in, values out. How the probe gets there is `gather.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.problems import Problem
from components.settings import Node, Settings


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Gpu(Fact):
    name: str
    uuid: str
    driver: str


class Cache(Fact):
    path: str
    """Absolute directory for weights (HF_HOME); may not exist yet."""

    free: int
    """Bytes. Changes by itself: for checks only, never for a resource's input."""

    held: dict[str, int]
    """Repository → bytes of it that are there already, also from an interrupted download."""

    writable: bool


class Container(Fact):
    id: str
    name: str
    running: bool
    labels: dict[str, str]
    """Only those that begin with `dgx-spark.`."""


class Present(Fact):
    """A model that is on the Spark already, and no hub is asked for."""

    commit: str
    """Of a directory that is no repository: a digest of its listing."""

    files: tuple[dict[str, Any], ...]
    """path, size (bytes) and sha256 (None where nothing says it)."""

    config: dict[str, Any]


class Docker(Fact):
    problem: str | None = None
    """None: the daemon answers. `absent`, `permission`, or its own words."""

    version: str = ""
    runtimes: tuple[str, ...] = ()
    images: dict[str, str] = {}
    """Image name → id, of the names that were asked for and are present."""

    containers: tuple[Container, ...] = ()


class Link(Fact):
    """A network device."""

    name: str
    mtu: int
    addresses: tuple[str, ...]
    """IPv4 with prefix length."""


class Gid(Fact):
    index: int
    gid: str
    """As sysfs prints it: eight groups of four hex digits."""

    type: str
    """`IB/RoCE v1` or `RoCE v2`."""


class RdmaDevice(Fact):
    """An HCA as /sys/class/infiniband shows it (Linux Documentation/ABI/stable/sysfs-class-infiniband)."""

    name: str
    netdev: str | None
    state: str
    """`4: ACTIVE`, `1: DOWN`, …"""

    rate: str
    """`200 Gb/sec (4X HDR)`; '' where unknown."""

    gids: tuple[Gid, ...]


class Record(Fact):
    """A managed thing's own note on the Spark (scripts/common.py)."""

    spec: str
    generation: str
    intact: bool
    model: dict[str, Any] | None = None
    """Of the weights' record: repo, commit, path and the files with their sizes."""


class Lease(Fact):
    stack: str
    """ORG/PROJECT/STACK that owns the Spark's GPU."""


class NodeFacts(Fact):
    machine_id: str
    boot_id: str
    hostname: str
    architecture: str
    home: str
    uid: int
    gid: int
    memory: int
    """Bytes that CPU and GPU share (MemTotal)."""

    available: int = 0
    """Bytes of it that are free now. Changes by itself: for checks only, never for a resource's input."""

    cache: Cache
    gpus: tuple[Gpu, ...]
    """Empty: the driver did not answer, or there is no GPU."""

    docker: Docker
    links: tuple[Link, ...]
    ibdev2netdev: str
    """Its output; '' where the tool is absent."""

    rdma: tuple[RdmaDevice, ...]
    infiniband_device: bool
    """/dev/infiniband exists."""

    listening: tuple[int, ...]
    """TCP ports that something listens on."""

    host_key: str
    """The Spark's public ed25519 host key; '' where it has none."""

    sudo: bool = False
    """Without a password. Looked for only where it is needed (checks.on_swarm)."""

    lease: Lease | None
    records: dict[str, Record]
    records_changed: str = ""
    """When a record was last written or taken away: moves by itself, and only new generations are made of it."""

    model_config_: dict[str, Any] | None = None
    """config.json of the weights that the record speaks of."""

    present: Present | None = None
    """The model, where it was looked for (offline, or a local directory) and found."""

    def intact(self, kind: str, spec: str) -> Record | None:
        """The record of `kind` if it stands for `spec` and all that it speaks of is there."""
        record = self.records.get(kind)
        return record if record and record.intact and record.spec == spec else None


def parse(answers: Mapping[str, Any], settings: Settings) -> tuple[dict[str, NodeFacts], list[Problem]]:
    """Facts per node, and a problem for each Spark that could not be asked."""
    facts: dict[str, NodeFacts] = {}
    problems: list[Problem] = []
    for node in settings.nodes:
        answer = answers[node.name]
        if "error" in answer:
            problems.append(explain(node, settings, **answer["error"]))
        else:
            values = dict(answer["facts"])
            values["model_config_"] = values.pop("model_config", None)
            facts[node.name] = NodeFacts.model_validate(values)
    return facts, problems


def explain(node: Node, settings: Settings, kind: str, detail: str) -> Problem:
    """Why a Spark could not be asked, and what the user can do."""
    user, key = settings.ssh.user, settings.ssh.key_file or "the ssh-agent's keys"
    at = f"{node.name} ({user}@{node.host}:{settings.ssh.port})"
    causes = {
        "host key": (
            "its host key is not the one in ssh.hostKeys",
            "if the Spark was reinstalled, compare /etc/ssh/ssh_host_ed25519_key.pub on it and correct "
            f"ssh.hostKeys.{node.name}; otherwise another machine answers at this address",
        ),
        "login": (
            f"it does not let {user} in with {key}",
            f"check ssh.user and ssh.privateKeyFile, or run `ssh-copy-id {user}@{node.host}`",
        ),
        "name": ("its name can't be resolved", "write the address in nodes[].host"),
        "unreachable": (f"it can't be reached: {detail}", "is it switched on, and is nodes[].host right?"),
        "python": ("it has no python3", "sudo apt install python3 (DGX OS has it)"),
    }
    wrong, fix = causes.get(
        kind, (detail, f"try the same login by hand: ssh -p {settings.ssh.port} {user}@{node.host}")
    )
    return Problem(at, wrong, fix)


def unusable(node: Node, facts: NodeFacts, settings: Settings) -> Iterator[Problem]:
    """What every engine needs of a Spark and this one lacks."""
    docker = facts.docker
    if docker.problem == "permission":
        yield Problem(node.name, f"{settings.ssh.user} may not use Docker", f"on it: sudo usermod -aG docker "
                      f"{settings.ssh.user}")  # fmt: skip
    elif docker.problem == "absent":
        yield Problem(node.name, "Docker does not run", "on it: sudo systemctl enable --now docker")
    elif docker.problem:
        yield Problem(node.name, docker.problem, "on it: sudo journalctl -u docker")
    elif "nvidia" not in docker.runtimes:
        yield Problem(
            node.name,
            "Docker has no NVIDIA runtime, so no container would see the GPU",
            "on it: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
        )
    if not facts.gpus:
        yield Problem(node.name, "nvidia-smi shows no GPU", "on it: nvidia-smi says why; reboot after a driver update")
    if not facts.cache.writable:
        yield Problem(
            node.name,
            f"{settings.ssh.user} can't write {facts.cache.path} (files of root from an older container?)",
            f"on it: sudo chown -R {settings.ssh.user} {facts.cache.path}",
        )
