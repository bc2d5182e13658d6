"""What a Spark says of itself, typed; read at every preview and up by scripts/probe.py.

Pure: text in, values out. How the probe gets there is remote/ask.py.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.facts.failure import Failure
from components.problems import Problem
from components.settings import Node, Settings


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Gpu(Fact):
    name: str
    uuid: str
    driver: str
    index: int = 0
    """Its place in nvidia-smi's list, which is by PCI bus."""


class Closed(Fact):
    """A directory or file that a download would write and the login user can't."""

    path: str
    owner: str
    missing: str
    """The cache, where it is not there yet and can't be made below `path`; '' otherwise."""

    read_only: bool
    """Its file system is mounted so."""


class Cache(Fact):
    path: str
    """Absolute directory for weights (HF_HOME); may not exist yet."""

    free: int
    """Bytes. Changes by itself: for checks only, never for a resource's input."""

    held: dict[str, dict[str, int]]
    """Repository → checksum of a large file (as huggingface_hub names blobs) → bytes of it that are there already, also
    from an interrupted download."""

    closed: tuple[Closed, ...] = ()
    """The topmost ones of what a download of the stack's models would write."""


class Container(Fact):
    id: str
    name: str
    running: bool
    labels: dict[str, str]
    """Only those that begin with `dgx-spark.`."""

    service: bool = False
    """Swarm's: known by its service, and not in Pulumi's state."""


class Thing(Fact):
    """What else this stack has in Docker, by its label."""

    kind: str
    """`volume`; or, where the Spark manages a Swarm, `service`, `config` or `secret`."""

    id: str
    """Docker's; of a volume its name."""

    name: str


class Present(Fact):
    """A model that is on the Spark already, and no hub is asked for."""

    commit: str
    """Of a directory that is no repository: a digest of its listing."""

    files: tuple[dict[str, Any], ...]
    """path, size (bytes) and sha256 (None where nothing says it)."""

    config: dict[str, Any] | None
    """None: its config.json is there, and no JSON object."""


class Image(Fact):
    """An image as Docker shows it. Its id is the config's digest in one store, the manifest's in the other."""

    id: str
    digests: tuple[str, ...]
    """NAME@sha256:…, where it came from a registry."""

    layers: tuple[str, ...]
    """Digests of the layers' content, the same in every store."""

    config: str
    """Digest of what a container gets from it: environment, command, user, architecture."""

    @property
    def content(self) -> str:
        """Equal for equal images, whatever store they are in."""
        return hashlib.sha256("\n".join([*self.layers, self.config]).encode()).hexdigest()


class CdiSpec(Fact):
    """A file by which Docker may find the GPU (Container Device Interface)."""

    path: str
    missing: tuple[str, ...]
    """Files of the host that it names and that are not there: it is older than the driver."""


class Docker(Fact):
    problem: str | None = None
    """None: the daemon answers. `absent`, `permission`, or its own words."""

    version: str = ""
    runtimes: tuple[str, ...] = ()
    contents: dict[str, Image] = {}
    """By name, those of the images that were asked for and are present."""

    gpu_devices: tuple[str, ...] = ()
    """CDI devices of NVIDIA's that the daemon has found (from Docker 28.2 on), e.g. `nvidia.com/gpu=all`."""

    live_restore: bool = False
    """Containers outlive the daemon: with Swarm it does not start."""

    containers: tuple[Container, ...] = ()
    things: tuple[Thing, ...] = ()


class Link(Fact):
    """A network device."""

    name: str
    mtu: int
    addresses: tuple[str, ...]
    """IPv4 with prefix length."""

    master: str | None = None
    """The bond that it is in."""

    parent: str | None = None
    """Of a VLAN: the device that it is on."""


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
    """A managed thing's own note on the Spark (scripts/shared/records.py)."""

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

    kernel: str = ""
    """Its release, as `uname -r`."""

    cma_total: int = 0
    cma_free: int = 0
    """Bytes of the contiguous memory allocator, 0 where the kernel has none. More free than there are in all: a kernel
    that keeps memory from RDMA (plan/host.py). Changes by itself."""

    perftest: bool = False
    """ib_write_bw and ib_write_lat are there."""

    available: int = 0
    """Bytes of it that are free now. Changes by itself: for checks only, never for a resource's input."""

    cache: Cache
    gpus: tuple[Gpu, ...]
    """Empty: the driver did not answer, or there is no GPU. The one of nodes[].gpu alone, where that is set."""

    gpu_words: str = ""
    """What nvidia-smi said in place of a GPU."""

    gpu_tools: tuple[str, ...] = ()
    """Of NVIDIA's hooks, by which Docker hands a GPU to a container, those that are there (probe.HOOKS)."""

    cdi: tuple[CdiSpec, ...] = ()
    docker: Docker
    links: tuple[Link, ...]
    ibdev2netdev: str
    """Its output; '' where the tool is absent."""

    rdma: tuple[RdmaDevice, ...]
    infiniband_device: bool
    """/dev/infiniband exists."""

    listening: tuple[int, ...]
    """TCP ports that something listens on."""

    listening_udp: tuple[int, ...] = ()
    """UDP ports on which something takes what comes from anywhere: of servers, and of clients that don't connect."""

    host_key: str
    """The Spark's public ed25519 host key; '' where it has none."""

    ssh_port: int = 22
    """Of its sshd, where it was reached; another one than here where its port is forwarded."""

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

    draft: Present | None = None
    """What guesses for it, likewise."""

    encodings: dict[str, str] = {}
    """Vocabularies below the cache, where they were looked for (offline) and found → sha256 of what is in them."""

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
            error = answer["error"]
            problems.append(explain(node, settings, Failure(error["kind"]), error["detail"]))
        else:
            values = dict(answer["facts"])
            values["model_config_"] = values.pop("model_config", None)
            values |= _chosen_gpu(node, values)
            facts[node.name] = NodeFacts.model_validate(values)
            if answer.get("noise"):
                problems.append(_noisy(node, answer["noise"]))
    return facts, problems


def _noisy(node: Node, noise: str) -> Problem:
    return Problem(
        node.name,
        f"its login shell prints {noise!r} where programs listen, and Docker over SSH and rsync take it for theirs",
        "on it: print only in shells of people, in ~/.bashrc after a line `[[ $- == *i* ]] || return` "
        "(fish: inside `if status is-interactive`)",
    )


def _chosen_gpu(node: Node, values: Mapping[str, Any]) -> dict[str, Any]:
    """`gpus` and `gpu_words`, of the GPU in nodes[].gpu alone where that is set."""
    every = [{**gpu, "index": index} for index, gpu in enumerate(values["gpus"])]
    chosen = [gpu for gpu in every if node.gpu in (None, gpu["uuid"])]
    if every and not chosen:
        there = ", ".join(gpu["uuid"] for gpu in every)
        return {"gpus": [], "gpu_words": f"{there} and not nodes[].gpu {node.gpu}"}
    return {"gpus": chosen}


def fingerprint(host_key: str) -> str:
    """Of `ssh-ed25519 AAAA…`, as ssh-keygen -l shows it; what is no key, as it is."""
    try:
        digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    except (IndexError, ValueError):
        return repr(host_key)
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def explain(node: Node, settings: Settings, kind: Failure, detail: str) -> Problem:
    """Why a Spark could not be asked, and what the user can do."""
    login = settings.ssh.login(node)
    user, key = login.user, login.key_file or "the ssh-agent's keys"
    at, by_hand = f"{node.name} ({user}@{node.host}:{login.port})", f"ssh -p {login.port} {user}@{node.host}"
    pinned = fingerprint(settings.ssh.host_keys.get(node.name, ""))
    causes = {
        Failure.HOST_KEY: (
            f"its host key is not the one in ssh.hostKeys: pinned is {pinned}, and it shows {detail}",
            "if the Spark was reinstalled, compare /etc/ssh/ssh_host_ed25519_key.pub on it and correct "
            f"ssh.hostKeys.{node.name}; otherwise another machine answers at this address",
        ),
        Failure.LOGIN: (
            f"it does not let {user} in with {key}",
            f"check ssh.user and ssh.privateKeyFile, or run `ssh-copy-id -p {login.port} {user}@{node.host}`",
        ),
        Failure.NAME: ("its name can't be resolved", "write the address in nodes[].host"),
        Failure.UNREACHABLE: (f"it can't be reached: {detail}", "is it switched on, and is nodes[].host right?"),
        Failure.PYTHON: ("it has no python3", "sudo apt install python3 (DGX OS has it)"),
        Failure.SLOW: ("it takes too long to answer", "what keeps it busy? On it: top, docker ps, nvidia-smi"),
        Failure.ANSWER: (
            f"it answers with {detail!r} in place of what was asked for"
            if detail
            else "it answers with nothing at all",
            f"what says that there? `{by_hand} true` must print nothing",
        ),
    }
    wrong, fix = causes.get(kind, (detail, f"try the same login by hand: {by_hand}"))
    return Problem(at, wrong, fix)
