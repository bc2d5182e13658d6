"""Makes the plan's steps: what is done on each Spark by a script of ours, and when it must be done again. Pure."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from components import ports
from components.facts.fabric import NodeLink
from components.facts.hub import Model
from components.facts.spark import NodeFacts
from components.plan.models import ENCODINGS, WEIGHTS, encoding_file, model_folder, needs_encodings, snapshot_directory
from components.plan.values import (
    GPU_KIND,
    RANK_KEY,
    SHM_SIZE,
    STACK_LIMIT,
    Extra,
    Identity,
    Image,
    Images,
    Qualification,
    Step,
    Swarm,
    digest,
)
from components.scripts.contracts import (
    Encoding,
    File,
    Gid,
    Link,
    PlannedBandwidth,
    PlannedBuild,
    PlannedCopyAccess,
    PlannedEviction,
    PlannedFabric,
    PlannedImage,
    PlannedImageCopy,
    PlannedLease,
    PlannedMember,
    PlannedMembers,
    PlannedSwarmHost,
    PlannedWeights,
    RankKey,
    Readable,
    ReadableSource,
    Record,
    Upstream,
)
from components.settings import Node, Settings

HOUR = 3600

SWARM_LIMIT = 90
"""Seconds for all Sparks to be in the Swarm, with their GPU."""


def new_generation(facts: Mapping[str, NodeFacts]) -> str:
    """The generation of whatever is made or repaired now: the same for the same facts, so that a saved plan holds.

    It differs from every one before: a thing is made anew because its record is missing or broken, and a record that
    was taken away changes `records_changed`, a broken one is part of what was found.
    """
    found = {
        name: [node.machine_id, node.records_changed, {kind: one.generation for kind, one in node.records.items()}]
        for name, node in facts.items()
    }
    return digest(found)


class Steps:
    """Makes steps with their records: the recorded generation where all is intact, else a fresh one."""

    def __init__(self, identity: Identity, facts: Mapping[str, NodeFacts], fresh: str) -> None:
        self._identity, self.facts, self._fresh = identity, facts, fresh

    def make(
        self,
        node: str,
        kind: str,
        script: str,
        inputs: Mapping[str, object],
        *,
        how: Collection[str] = (),
        limit: int = 120,
        root: bool = False,
        secret: bool = False,
        again: bool = False,
    ) -> Step:
        """`how`: keys of `inputs` that say how the thing gets there; the others say what it is, and make it anew.
        `again`: it is to be done, whatever its record says."""
        spec = digest({key: value for key, value in inputs.items() if key not in how})
        record = self.record(node, kind, spec)
        if again:
            record["generation"] = self._fresh
        return Step(
            node,
            kind,
            script,
            {**inputs, "record": record},
            (self.facts[node].machine_id, record["spec"], record["generation"]),
            limit,
            root,
            secret,
        )

    def record(self, node: str, kind: str, spec: str) -> Record:
        """What the record will say of a thing: the recorded generation where it is intact, else a fresh one."""
        known = self.facts[node].intact(kind, spec)
        generation = known.generation if known else self._fresh
        return {"stack": self._identity.full, "kind": kind, "spec": spec, "generation": generation}


def prepare(steps: Steps, settings: Settings, identity: Identity, facts: Mapping[str, NodeFacts]) -> tuple[Step, ...]:
    """Scripts that are gone, or others, are laid again, and nothing is made anew for it."""
    return tuple(
        steps.make(
            node.name,
            "node",
            "node.py",
            PlannedLease(
                stack=identity.full,
                node=node.name,
                cache=facts[node.name].cache.path,
                takeover=settings.takeover,
                laid=steps.record(node.name, "scripts", ""),
            ),
            how=("node", "takeover", "laid"),
        )
        for node in settings.nodes
    )


def confirm_fabric(steps: Steps, links: Mapping[str, NodeLink]) -> tuple[Step, ...]:
    return tuple(
        steps.make(
            name,
            "fabric",
            "fabric.py",
            PlannedFabric(link=_planned(link), peers=[peer.address for peer in links.values() if peer.node != name]),
        )
        for name, link in links.items()
    )


def _planned(link: NodeLink) -> Link:
    return Link(
        node=link.node,
        interface=link.interface,
        address=link.address,
        prefix=link.prefix,
        hcas=list(link.hcas),
        gid_index=link.gid_index,
        mtu=link.mtu,
        gids=[Gid(device=gid.device, index=gid.index, address=gid.address) for gid in link.gids],
        gid_range=link.gid_range,
    )


MEASURED = 2
"""Seconds of one measurement of the fabric, each way; the first half second already shows a degraded link."""


def qualify(settings: Settings, links: Mapping[str, NodeLink], confirmed: Sequence[Step]) -> Qualification | None:
    minimum = {"perftest": settings.fabric.min_rdma_gbps, "tcp": settings.fabric.min_tcp_gbps}
    if len(links) < 2 or not any(minimum.values()):
        return None
    # Without RDMA devices on every Spark there is nothing for perftest to measure.
    devices = all(link.hcas for link in links.values())
    return Qualification(
        seconds=MEASURED,
        minimum=minimum if devices else {"perftest": 0, "tcp": minimum["tcp"]},
        inputs={
            name: PlannedBandwidth(
                address=link.address,
                devices=list(link.hcas),
                gid_indexes=_gid_indexes(link),
                port=ports.PERFTEST,
            )
            for name, link in links.items()
        },
        triggers=tuple(word for step in confirmed for word in step.triggers),
    )


def _gid_indexes(link: NodeLink) -> dict[str, int]:
    """Device → index; none for a device where nothing says it."""
    if link.gid_index is not None:
        return dict.fromkeys(link.hcas, link.gid_index)
    return {gid.device: gid.index for gid in link.gids}


def _encodings(settings: Settings, model: Model, cache: str) -> list[Encoding]:
    if not needs_encodings(model):
        return []
    return [
        Encoding(path=f"{cache}/{encoding_file(name)}", url=encoding.url, sha256=encoding.sha256)
        for name, encoding in sorted(settings.weights.encodings.items())
    ]


def place_weights(
    steps: Steps,
    settings: Settings,
    facts: Mapping[str, NodeFacts],
    links: Mapping[str, NodeLink],
    model: Model,
    image: str,
    *,
    kind: str = WEIGHTS,
    revision: str | None = None,
) -> tuple[Step, ...]:
    """Head first: it downloads. Each of the others copies from the one before it, over the fabric, while that one still
    receives. `revision`: as the settings say it."""
    head = settings.head
    chosen = settings.weights

    def inputs(node: Node) -> PlannedWeights:
        cache = facts[node.name].cache.path
        # A directory is the user's own on the head; on the others it is our copy.
        keep = chosen.keep or (bool(model.path) if node is head else chosen.shared)
        wanted = PlannedWeights(
            repo=model.repo,
            revision=revision,
            commit=model.commit,
            files=[File(path=file.path, size=file.size, sha256=file.sha256) for file in model.files],
            folder=model_folder(cache, model),
            path=snapshot_directory(cache, model),
            encodings=_encodings(settings, model, cache),
            keep=keep,
        )
        if chosen.offline:
            wanted |= {"offline": True}
        if node is head and model.loaded:
            wanted |= {"loaded": model.loaded}
        if node is head and not (model.path or chosen.offline):
            wanted |= {"endpoint": chosen.endpoint, "image": image, "cache": cache}
        if node is not head and not chosen.shared:
            wanted |= {"source": ReadableSource(**_upstream(steps, settings, links, node), **_readable(model))}
        return wanted

    return tuple(
        steps.make(node.name, kind, "weights.py", inputs(node), how=HOW_WEIGHTS_COME, limit=24 * HOUR)
        for node in settings.nodes
    )


HOW_WEIGHTS_COME = ("keep", "endpoint", "image", "cache", "source", "loaded", "offline")
"""The files are the same whatever it is, and a change of it leaves them alone."""


def _readable(model: Model) -> Readable:
    """What the copies ask for, relative to the directory that their key may read (`authorize`)."""
    if model.path:
        return Readable(model=".", encodings="")
    return Readable(model=posixpath.basename(model_folder("", model)), encodings=posixpath.basename(ENCODINGS))


def images(steps: Steps, settings: Settings, links: Mapping[str, NodeLink], image: Image, dockerfile: str) -> Images:
    """The images' ids join the steps' input when they are known (engine_image.py).

    dockerfile   text; read only where the image is built
    """
    head, *others = settings.nodes
    chosen = settings.image
    copied = chosen.source != "pull" and bool(others)
    on = settings.nodes if chosen.source == "pull" else (head,)
    name = built_tag(settings, dockerfile) if chosen.source == "build" else image.name
    inputs = PlannedImage(name=name, add=image.additions)
    return Images(
        name=name,
        source=chosen.source,
        build=_build(steps, settings, dockerfile) if chosen.source == "build" else None,
        looks={node.name: steps.make(node.name, "image", "image.py", inputs, limit=HOUR) for node in on}
        if image.additions or others
        else {},
        keys=copy_keys(steps, settings, "image-key") if copied else (),
        access=tuple(
            steps.make(before.name, "image-access", "copy_access.py", _access("image-key", node, links))
            for before, node in hops(settings)
        )
        if copied
        else (),
        copies=tuple(_image_copy(steps, settings, links, name, node) for node in others) if copied else (),
    )


def _image_copy(steps: Steps, settings: Settings, links: Mapping[str, NodeLink], name: str, node: Node) -> Step:
    wanted = PlannedImageCopy(name=name, source=_upstream(steps, settings, links, node))
    if node is not settings.nodes[-1]:
        wanted["passed_on"] = True
    return steps.make(node.name, "image-copy", "image_copy.py", wanted, how=("source", "passed_on"), limit=6 * HOUR)


def hops(settings: Settings) -> tuple[tuple[Node, Node], ...]:
    """(a Spark, the next one, which copies from it): a chain, so that no Spark sends a thing more than once."""
    return tuple(itertools.pairwise(settings.nodes))


def built_tag(settings: Settings, dockerfile: str) -> str:
    return f"dgx-spark/{settings.engine}:{digest([dockerfile, settings.image.build_args])[:12]}"


def _build(steps: Steps, settings: Settings, dockerfile: str) -> Step:
    arguments = dict(settings.image.build_args)
    limit = 12 * HOUR
    tag = built_tag(settings, dockerfile)
    inputs = PlannedBuild(dockerfile=dockerfile, args=arguments, tag=tag, limit=limit - 60)
    return steps.make(
        settings.head.name,
        "image-build",
        "image_build.py",
        inputs,
        how=("limit",),
        limit=limit,
        secret=settings.is_encrypted("image"),
    )


def copy_keys(steps: Steps, settings: Settings, kind: str) -> tuple[Step, ...]:
    return tuple(steps.make(node.name, kind, "copy_key.py", {}) for node in settings.nodes[1:])


def _access(key: str, node: Node, links: Mapping[str, NodeLink]) -> PlannedCopyAccess:
    """For `node`, which copies."""
    return PlannedCopyAccess(key=key, sources=[links[node.name].address])


def _upstream(steps: Steps, settings: Settings, links: Mapping[str, NodeLink], node: Node) -> Upstream:
    """For `node`, which copies."""
    (before,) = (one.name for one, next_ in hops(settings) if next_ is node)
    return Upstream(
        address=links[before].address,
        user=settings.login(before).user,
        port=steps.facts[before].ssh_port,
        host_key=settings.ssh.host_keys[before],
        own=links[node.name].address,
    )


def authorize(
    steps: Steps, settings: Settings, facts: Mapping[str, NodeFacts], links: Mapping[str, NodeLink], model: Model
) -> tuple[Step, ...]:
    """On each Spark but the last: lets the next one's key in, which joins the step's input when it is known
    (model_weights.py)."""

    def access(before: Node, node: Node) -> Step:
        inputs = _access("copy-key", node, links)
        inputs["directory"] = model.path or f"{facts[before.name].cache.path}/hub"
        return steps.make(before.name, "copy-access", "copy_access.py", inputs)

    return tuple(access(*hop) for hop in hops(settings)) if copies(settings) else ()


def inside(name: str) -> str:
    """Text of a program that runs inside the containers."""
    return (Path(__file__).parent.parent / "inside" / name).read_text()


def copies(settings: Settings) -> bool:
    """Do Sparks copy weights from each other?"""
    return len(settings.nodes) > 1 and not settings.weights.shared


def swarm(steps: Steps, settings: Settings, facts: Mapping[str, NodeFacts]) -> Swarm:
    """Addresses, tokens and node ids join the steps' input when they are known (swarm_cluster.py)."""
    keep = settings.swarm.keep

    def host(name: str) -> Step:
        inputs = PlannedSwarmHost(
            uuid=facts[name].gpus[0].uuid,
            kind=GPU_KIND,
            shm_size=settings.containers.shm_size or SHM_SIZE,
            stack_limit=STACK_LIMIT,
            daemon="/etc/docker/daemon.json",
            toolkit="/etc/nvidia-container-runtime/config.toml",
            keep=keep,
        )
        return steps.make(name, "swarm-host", "swarm_host.py", inputs, how=("keep",), limit=300, root=True)

    def member(name: str, kind: str, script: str) -> Step:
        return steps.make(name, kind, script, PlannedMember(keep=keep, port=ports.SWARM), how=("keep", "port"))

    head, *others = [node.name for node in settings.nodes]
    wanted = PlannedMembers(kind=GPU_KIND, wait=SWARM_LIMIT)
    return Swarm(
        hosts=tuple(host(node.name) for node in settings.nodes),
        manager=member(head, "swarm-manager", "swarm_manager.py"),
        workers=tuple(member(name, "swarm-worker", "swarm_worker.py") for name in others),
        members=Step(head, "swarm-members", "swarm_members.py", wanted, (), SWARM_LIMIT + 60),
    )


def rank_key(settings: Settings, identity: Identity) -> Step:
    """Without triggers: another key would make all ranks anew."""
    return Step(settings.head.name, "rank-key", "rank_key.py", RankKey(stack=identity.full, path=RANK_KEY), (), 60)


def evict(
    steps: Steps,
    settings: Settings,
    identity: Identity,
    containers: Mapping[str, Sequence[str]],
    services: bool,
    extras: Sequence[Extra],
    unwanted: Collection[str],
) -> tuple[Step, ...]:
    """`containers`: node → components of the server that stay there; `unwanted`: nodes with something that goes and
    that Pulumi's state does not know."""
    beside = {node.name: sorted({extra.role for extra in extras if extra.node == node.name}) for node in settings.nodes}
    return tuple(
        steps.make(
            node.name,
            "room",
            "evict.py",
            PlannedEviction(
                stack=identity.full,
                components=sorted(containers.get(node.name, ())),
                beside=beside[node.name],
                services=services,
                takeover=settings.takeover,
            ),
            how=("takeover",),
            # Containers of an engine have a minute each to end, one after the other: a server, and then its Ray.
            limit=300,
            again=node.name in unwanted,
        )
        for node in settings.nodes
    )
