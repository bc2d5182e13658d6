"""The typed plan that components render: everything decided, nothing done yet. Pure.

Settings and facts in, values out; whatever can be refused is refused here, at preview (checks.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from components.facts.fabric import NodeLink
from components.facts.hub import Model
from components.problems import Problem
from components.remote.ssh import Way
from components.scripts.contracts import PlannedBandwidth
from components.settings import Settings

RANK_KEY = "/run/secrets/rank_key"
"""Where each rank's container has the key by which the ranks know each other (inside/together.py, inside/mpi.py)."""

SECRET_ENVIRONMENT = "/run/secrets/environment"
"""Where a container has variables that are secrets (inside/environment.py, inside/mpi.py)."""

GPU_KIND = "GPU"
"""The GPU's name as Swarm's generic resource. Docker calls a task's variable DOCKER_RESOURCE_GPU then, which is what
the NVIDIA runtime's config.toml has in its comment."""


STACK_LIMIT = 67108864
"""Bytes of stack in every rank's container. Source: the start-up message of NVIDIA's containers, on ulimits."""


SHM_SIZE = 16384
"""MiB of /dev/shm where a container has its own and nobody said how much. Source: 16g of NVIDIA's and the community's
vLLM recipes for Spark pairs."""


@dataclass(frozen=True)
class Identity:
    """Who converges: names containers, labels and leases."""

    organization: str
    project: str
    stack: str

    @property
    def full(self) -> str:
        return f"{self.organization}/{self.project}/{self.stack}"

    def container(self, role: str) -> str:
        return f"{self.project}-{self.stack}-{role}"


@dataclass(frozen=True)
class Step:
    """A managed thing on one Spark: a script of ours, what it is given and when it must run again."""

    node: str
    kind: str
    """Names the record on the Spark."""

    script: str
    inputs: Mapping[str, object]
    """One of scripts/contracts.py, and the record; the rest joins when it is known."""

    triggers: tuple[str, ...]
    """(machine id, spec, generation): the thing is made anew when one of them changes."""

    limit: int
    """Seconds after which the script is ended."""

    root: bool = False
    secret: bool = False
    """What it is given is a secret."""


@dataclass(frozen=True)
class Mount:
    source: str
    """Absolute path on the Spark, or a Docker volume's name."""

    target: str
    read_only: bool = False
    of_image: bool = False
    """A volume whose name ends with the image's id, so that each image has its own (`volume_of_image`)."""

    @property
    def is_volume(self) -> bool:
        return not self.source.startswith("/")


def volume_of_image(name: str, image: str) -> str:
    """`image`: its id."""
    return f"{name}.{image.removeprefix('sha256:')[:12]}"


@dataclass(frozen=True)
class Container:
    """A container on one Spark, down to each rank's environment."""

    name: str
    node: str
    component: str
    rank: int
    runner: tuple[str, ...]
    """What the container's main process is, with `command` behind it; empty: the command itself."""

    command: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    """None: the image's own."""

    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    files: Mapping[str, str]
    """Path in the container → content, written before it starts."""

    labels: Mapping[str, str]
    restart: str
    """Docker's restart policy."""

    retries: int
    """With `on-failure`: how often Docker starts it again."""

    grace: int
    """Seconds between SIGTERM and SIGKILL."""

    rdma: bool
    """Gets /dev/infiniband."""

    privileged: bool
    capabilities: tuple[str, ...]
    """All that it may beyond what any process may; meaningless where it is privileged."""

    shm_size: int
    """MiB of its own /dev/shm, where it has one."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Words of the command that nobody may read in Pulumi's state or on the screen."""

    secret_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The same as `files`, of contents that are secrets."""

    own_shm: bool = False
    """It has a /dev/shm of its own; else the Spark's, with all else of its IPC namespace."""


@dataclass(frozen=True)
class Image:
    name: str
    ray: str | None = None
    """Version to add where the image has no Ray; None: the engine needs no Ray."""

    sshd: bool = False
    """The engine needs sshd in its image."""

    @property
    def additions(self) -> dict[str, str]:
        """What is added to the image where it lacks it."""
        return {**({"ray": self.ray} if self.ray else {}), **({"sshd": "openssh-server"} if self.sshd else {})}


@dataclass(frozen=True)
class Images:
    """How the same image gets onto every Spark."""

    name: str
    source: str
    """`pull` on every Spark, or `copy` from the head to the others, from Spark to Spark, or `build` on the head and
    copy."""

    build: Step | None
    looks: Mapping[str, Step]
    """Node → step that looks what is in the image, and adds what the engine needs beside itself. With `copy` and
    `build` the head alone; empty where one Spark needs nothing added."""

    keys: tuple[Step, ...]
    """On each Spark but the head."""

    access: tuple[Step, ...]
    """On each Spark but the last: lets the next one's key save the image, and nothing else."""

    copies: tuple[Step, ...]
    """On each Spark but the head."""


@dataclass(frozen=True)
class Ray:
    head: Container
    workers: tuple[Container, ...]
    volume: str
    """Docker volume on the head for /tmp/ray: a server in its own container finds the session there."""

    addresses: tuple[str, ...]
    port: int
    dashboard: str | None
    """URL, as reached from the head; None: there is none."""


@dataclass(frozen=True)
class Swarm:
    hosts: tuple[Step, ...]
    """Docker's settings on every Spark; they need root."""

    manager: Step
    workers: tuple[Step, ...]
    members: Step


@dataclass(frozen=True)
class Qualification:
    """How fast the fabric must be (components/programs/qualification.py)."""

    seconds: int
    """Of one measurement."""

    minimum: Mapping[str, float]
    """`perftest` and `tcp` → Gb/s; 0: not measured."""

    inputs: Mapping[str, PlannedBandwidth]
    """By node."""

    triggers: tuple[str, ...]
    """What was confirmed of the links: measured again with it."""


@dataclass(frozen=True)
class Readiness:
    """When the endpoint counts as ready, and what to watch meanwhile."""

    port: int
    model: str
    """The name that /v1/models must list and the completion asks for."""

    timeout: int
    """Seconds."""

    containers: Mapping[str, tuple[str, ...]]
    """Node → components (labels of containers) whose end is the end of the endpoint."""

    task: str = "generate"
    """`generate`, `embed` or `score`: what the model is for, and so which of the API's endpoints must answer."""

    template: bool = False
    """The model has a chat template for sure, so a chat must work."""


@dataclass(frozen=True)
class Extra:
    """A container beside the server, of another image (components/plan/beside.py)."""

    role: str
    node: str
    image: str
    ports: tuple[int, ...]
    """TCP, on the Spark itself."""

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    """None: the image's own."""

    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Paths in the container of files whose content is a secret."""

    volume: tuple[str, str] | None = None
    """(end of its name, path in the container)"""

    host_root: str = ""
    """Where the Spark's own / is mounted, read-only."""

    gpu: bool = False


@dataclass(frozen=True)
class Draft:
    """What guesses tokens ahead, which the model then verifies in one step."""

    method: str
    """One of settings/serving.py `DraftMethod`."""

    tokens: int
    repo: str = ""
    """Of its own weights; '': it has none."""

    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """vLLM's further keys."""

    configured: bool = False
    """By the user, and not by the catalog."""


@dataclass(frozen=True)
class Staged:
    """A model that is in place beside the one that is served."""

    repo: str
    weights: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    identity: Identity
    nodes: tuple[str, ...]
    """Head first; the position is the rank."""

    links: Mapping[str, NodeLink]
    """Empty with one Spark."""

    preparation: tuple[Step, ...]
    fabric: tuple[Step, ...]
    qualification: Qualification | None
    """None: one Spark, or nothing is to be measured."""

    image: Images
    copy_keys: tuple[Step, ...]
    """On each Spark but the head."""

    authorizations: tuple[Step, ...]
    """On each Spark but the last: lets the next one's key read the weights, and nothing else."""

    weights: tuple[Step, ...]
    draft: Staged | None
    """The weights of what guesses tokens ahead, where it has its own. The server waits for them too."""

    staged: tuple[Staged, ...]
    ray: Ray | None
    swarm: Swarm | None
    rank_key: Step | None
    """Makes the key by which the ranks know each other; None: there is one rank."""

    evictions: tuple[Step, ...]
    """On every Spark: stops what must not run beside the server."""

    takes_over: bool
    """Another stack's containers run on the Sparks until the evictions have removed them."""

    ranks: tuple[Container, ...]
    """The server's containers, the one that serves HTTP first."""

    extras: tuple[Extra, ...]
    readiness: Readiness
    model: Model
    served_name: str
    api_base: str
    endpoint_generation: str
    """Changes when a container was found stopped or gone, so that the repaired endpoint has to prove itself."""

    api_key_path: str
    """Where rank 0 finds the API's key."""

    api_key_file: str = field(repr=False)
    """Content of that file. A secret."""

    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Node → the rank's communication environment, for the stack's outputs."""

    warnings: tuple[Problem, ...] = ()
    """What does not refuse."""

    strays: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Node → (kind, name) of what is left over there, wanted by nobody and in no resource's way."""

    ways: Mapping[str, Way] = field(default_factory=dict, repr=False)
    """Node → how the command provider gets to it."""


def service_name(rank: Container) -> str:
    """Of the Swarm service that runs it: a Swarm has one namespace for all Sparks."""
    return f"{rank.name}-{rank.node}"


def content(container: Container) -> dict[str, Any]:
    """What a container is, to tell it from another; a field that came later counts where it is used, so that an update
    of this program alone replaces no server."""
    return {key: value for key, value in asdict(container).items() if (key, value) != ("own_shm", False)}


def digest(value: Any) -> str:
    """Short hash of plain data, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def api_base(settings: Settings, port: int) -> str:
    """OpenAI base URL as seen from the machine that runs Pulumi."""
    bound = settings.serving.host
    return f"http://{settings.head.url_host if bound == '0.0.0.0' else bound}:{port}/v1"
