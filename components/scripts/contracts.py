"""What each script on a Spark is given, and what it answers: the types that both sides use, and no code.

components/plan/steps.py and ops/ make these values; scripts name them in their annotations alone, so that nothing of
this is needed on a Spark. For mypy the name TYPE_CHECKING is true:

    TYPE_CHECKING = False
    if TYPE_CHECKING:
        from contracts import Eviction

Of a step, `Planned…` is what the plan knows; what is known only when others are done, and the record, join later
(components/resources/). Each script's docstring says what the values mean.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Record(TypedDict):
    """What the record of a managed thing will say (shared/records.py)."""

    stack: str
    kind: str
    spec: str
    generation: str


class Managed(TypedDict):
    """What every step with a record is given beside its own."""

    record: Record


class Upstream(TypedDict):
    """The Spark that another one copies from (shared/upstream.py)."""

    address: str
    user: str
    port: int
    host_key: str
    own: str
    """The copying Spark's own fabric address."""


class File(TypedDict):
    path: str
    size: int
    sha256: str | None


class Gpu(TypedDict):
    """The GPU at one moment (shared/gpu.py); None for what the driver does not print."""

    busy: float | None
    temperature: float | None
    power: float | None
    clock: float | None


class Network(TypedDict):
    """What one rank's NCCL says of its network (shared/nccl_log.py)."""

    host: str
    network: str
    proven: bool
    finding: str


# bandwidth.py


class PlannedBandwidth(TypedDict):
    address: str
    devices: list[str]
    gid_indexes: dict[str, int]
    port: int


class _Side(PlannedBandwidth):
    role: str
    seconds: int


class Bandwidth(_Side, total=False):
    """The last two with the roles `serve` and `measure`; peer with `measure` alone."""

    tool: str
    peer: str


# clear.py


class Clearing(TypedDict):
    stack: str
    kind: str
    name: str
    wanted: dict[str, Any] | None


# rank_key.py


class RankKey(TypedDict):
    stack: str
    path: str


# copy_access.py


class _Access(TypedDict):
    key: str
    sources: list[str]


class PlannedCopyAccess(_Access, total=False):
    directory: str


class CopyAccess(PlannedCopyAccess, Managed):
    keys: list[str]


class ImageAccess(CopyAccess, total=False):
    """In place of `directory`."""

    image: str


# doctor.py


class Doctor(TypedDict):
    cache: str
    peers: dict[str, str]
    interface: str
    mtu: int
    ports: list[int]
    texts: bool


class SwarmState(TypedDict):
    state: str
    nodes: int


class Examined(TypedDict):
    time: float
    kernel: str
    system: str
    memlock: int | None
    foreign: list[str]
    pings: dict[str, str]
    ports: dict[str, dict[str, str]]
    guard: str
    wall: GuardState
    swarm: SwarmState
    containers: list[str]
    texts: dict[str, str]


# fabric.py


class Gid(TypedDict):
    device: str
    index: int
    address: str


class Link(TypedDict):
    node: str
    interface: str
    address: str
    prefix: int
    hcas: list[str]
    gid_index: int | None
    mtu: int
    gids: list[Gid]
    gid_range: str | None


class PlannedFabric(TypedDict):
    link: Link
    peers: list[str]


class Fabric(PlannedFabric, Managed):
    pass


# gpu_busy.py


class GpuBusy(TypedDict):
    seconds: float


# hold.py


class Hold(TypedDict):
    stack: str
    who: str


# image.py, image_build.py, image_copy.py


class PlannedImage(TypedDict):
    name: str
    add: dict[str, str]


class Image(PlannedImage, Managed):
    image: str


class FoundImage(TypedDict):
    image: str
    base: str
    content: str
    layers: list[str]
    base_content: str
    ray: str


class PlannedBuild(TypedDict):
    dockerfile: str
    args: dict[str, str]
    tag: str
    limit: int


class Build(PlannedBuild, Managed):
    pass


class _ImageCopy(TypedDict):
    name: str
    source: Upstream


class PlannedImageCopy(_ImageCopy, total=False):
    passed_on: bool


class ImageCopy(PlannedImageCopy, Managed):
    image: str
    content: str
    layers: list[str]


# logs.py, look.py, nccl.py


class Logs(TypedDict):
    stack: str
    components: list[str]
    lines: int
    follow: bool
    since: str


class Look(TypedDict):
    stack: str
    cache: str


class Space(TypedDict):
    """Bytes."""

    total: int
    free: int


class ShownContainer(TypedDict):
    component: str
    name: str
    state: str
    status: str
    image: str


class Startup(TypedDict):
    """Of the server's last start that was watched: when Docker started its container (UTC), and how many seconds later
    its port was open, /health answered and the first token came (of a pooling model: the first answer)."""

    started: str
    configuration: str
    """A digest of image, command line and environment."""

    port: int
    health: int
    answer: int


class Looked(TypedDict):
    gpu: Gpu
    memory: Space
    disk: Space
    load: float
    uptime: float
    lease: str
    containers: list[ShownContainer]
    startup: Startup | None


class Nccl(TypedDict):
    stack: str


# guard.py


class Guard(TypedDict):
    text: str
    write: bool


class GuardState(TypedDict):
    """shared/guard.py"""

    text: str
    active: bool
    chosen: list[int]


# netplan.py


class Netplan(TypedDict):
    text: str
    ports: list[str]
    write: bool
    aside: list[str]


class OtherNetplan(TypedDict):
    path: str
    lists: dict[str, list[str]]
    alone: bool


class FoundNetplan(TypedDict):
    before: str
    others: list[OtherNetplan]
    aside: list[str]


# node.py


class PlannedLease(TypedDict):
    stack: str
    node: str
    cache: str
    takeover: bool
    laid: Record


class Lease(PlannedLease, Managed):
    pass


# probe.py; components/facts/spark.py says what each fact means


class Probe(TypedDict):
    stack: str
    cache: str
    repos: list[str]
    look: dict[str, str | None] | None
    draft: dict[str, str | None] | None
    encodings: list[str]
    images: list[str]
    sudo: bool


class Facts(TypedDict):
    machine_id: str
    boot_id: str
    hostname: str
    architecture: str
    kernel: str
    cma_total: int
    cma_free: int
    perftest: bool
    home: str
    uid: int
    gid: int
    memory: int
    available: int
    cache: dict[str, Any]
    present: dict[str, Any] | None
    draft: dict[str, Any] | None
    encodings: dict[str, str]
    gpus: list[dict[str, str]]
    gpu_words: str
    gpu_tools: list[str]
    cdi: list[dict[str, Any]]
    docker: dict[str, Any]
    links: list[dict[str, Any]]
    ibdev2netdev: str
    rdma: list[dict[str, Any]]
    infiniband_device: bool
    listening: list[int]
    listening_udp: list[int]
    host_key: str
    ssh_port: int
    sudo: bool
    lease: dict[str, str] | None
    records: dict[str, dict[str, Any]]
    records_changed: str
    model_config: dict[str, Any] | None


# prune.py


class Prune(TypedDict):
    cache: str
    remove: list[tuple[str, str]]
    volumes: list[str]


class Revision(TypedDict):
    repo: str
    commit: str
    bytes: int
    used_by: list[str]


class Compiled(TypedDict):
    volume: str
    repo: str
    bytes: int
    used_by: list[str]


class Pruned(TypedDict):
    revisions: list[Revision]
    compiled: list[Compiled]


# ray_formed.py


class RayFormed(TypedDict):
    stack: str
    head: str
    addresses: list[str]
    port: int
    wait: int


# evict.py


class PlannedEviction(TypedDict):
    stack: str
    components: list[str]
    beside: list[str]
    services: bool
    takeover: bool


class Eviction(PlannedEviction, Managed):
    pass


# swarm_host.py, swarm_manager.py, swarm_worker.py, swarm_members.py


class PlannedSwarmHost(TypedDict):
    uuid: str
    kind: str
    shm_size: int
    stack_limit: int
    daemon: str
    toolkit: str
    keep: bool


class SwarmHost(PlannedSwarmHost, Managed):
    pass


class PlannedMember(TypedDict):
    keep: bool
    port: int


class SwarmManager(PlannedMember, Managed):
    pass


class Manager(TypedDict):
    """What swarm_manager.py answers."""

    node: str
    cluster: str
    address: str
    token: str


class SwarmWorker(PlannedMember, Managed):
    manager: str


class PlannedMembers(TypedDict):
    kind: str
    wait: int


class SwarmMembers(PlannedMembers):
    nodes: dict[str, str]


# watch.py


class _Watched(TypedDict):
    stack: str
    components: list[str]
    lines: int
    several: bool


class Watch(_Watched, total=False):
    """The rest on the head alone."""

    api: str
    model: str
    key: str
    record: Record
    task: str
    template: bool
    check: bool


# weights.py


class Encoding(TypedDict):
    path: str
    url: str
    sha256: str


class Readable(TypedDict):
    model: str
    encodings: str


class ReadableSource(Upstream, Readable):
    pass


class _Model(TypedDict):
    repo: str
    revision: str | None
    commit: str
    files: list[File]
    folder: str
    path: str
    encodings: list[Encoding]
    keep: bool


class PlannedWeights(_Model, total=False):
    """One of the two ways to get them, or none."""

    offline: bool
    loaded: int
    """Bytes of the weights in an engine's memory, where the hub said them; for the record alone."""

    endpoint: str
    image: str
    cache: str
    source: ReadableSource


class Weights(PlannedWeights, Managed):
    token: str
