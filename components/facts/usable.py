"""Can a Spark serve at all? What every engine needs of it, and the one thing to do where that is lacking. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from components.facts.spark import Closed, Docker, NodeFacts
from components.problems import Problem
from components.settings import Node, Settings

GPUS_BY_CDI = (29, 2)
"""From this Docker on `--gpus` is tried by CDI first. Source: moby 86f122af27, docker-v29.2.0."""

TOOLKIT = "on it: sudo apt install nvidia-container-toolkit && sudo systemctl restart docker"


def unusable(node: Node, facts: NodeFacts, settings: Settings) -> Iterator[Problem]:
    """What every engine needs of a Spark and this one lacks."""
    docker, user = facts.docker, settings.ssh.login(node).user
    if docker.problem == "permission":
        yield Problem(node.name, f"{user} may not use Docker", f"on it: sudo usermod -aG docker {user}")
    elif docker.problem == "absent":
        yield Problem(node.name, "Docker does not run", "on it: sudo systemctl enable --now docker")
    elif docker.problem:
        yield Problem(node.name, docker.problem, "on it: sudo systemctl restart docker; why: sudo journalctl -u docker")
    elif wrong := _out_of_reach(facts):
        yield Problem(node.name, wrong, TOOLKIT)
    if not facts.gpus:
        said = facts.gpu_words or "nothing"
        yield Problem(node.name, f"nvidia-smi shows no GPU, but: {said}", "reboot it after an update of the driver")
    if len(facts.gpus) > 1:
        yield _several(settings.nodes.index(node), node, facts)
    yield from _cache(node, facts, user)


def version(docker: Docker) -> tuple[int, int]:
    """(major, minor); (0, 0) where it is written otherwise."""
    match = re.match(r"(\d+)\.(\d+)", docker.version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def gpus_by_cdi(facts: NodeFacts) -> bool:
    """Docker resolves `--gpus` by CDI."""
    return version(facts.docker) >= GPUS_BY_CDI and "nvidia-cdi-hook" in facts.gpu_tools


def _out_of_reach(facts: NodeFacts) -> str:
    """Why no container would see the GPU; '' where one does.

    What containers are run with is `--gpus all`, which Docker resolves by NVIDIA's hook, or by CDI where it is new
    enough; a registered runtime comes with the hook. Source: moby v26.1.5 to master, daemon/*nvidia_linux.go.
    """
    docker = facts.docker
    if "nvidia" in docker.runtimes or "nvidia-container-runtime-hook" in facts.gpu_tools:
        return ""
    if not docker.gpu_devices:
        return "Docker has no way to the GPU: no runtime `nvidia`, no hook and no CDI device"
    if gpus_by_cdi(facts):
        return ""
    major, minor = GPUS_BY_CDI
    known = f"Docker {docker.version} knows the GPU by CDI alone ({docker.gpu_devices[-1]})"
    return f"{known}, which `--gpus` uses from {major}.{minor} on"


def _several(index: int, node: Node, facts: NodeFacts) -> Problem:
    names = ", ".join(f"{gpu.name} {gpu.uuid}" for gpu in facts.gpus)
    return Problem(
        node.name,
        f"has {len(facts.gpus)} GPUs ({names}), and one per Spark is supported",
        f"name it: pulumi config set --path 'nodes[{index}].gpu' {facts.gpus[0].uuid}",
    )


def _cache(node: Node, facts: NodeFacts, user: str) -> Iterator[Problem]:
    """What of the cache can't be written, by what mends it."""
    closed = facts.cache.closed
    for one in closed:
        if one.read_only:
            elsewhere = "mount it for writing, or put the cache elsewhere with weights.cache"
            yield Problem(node.name, f"{one.path} is on a file system that is mounted read-only", elsewhere)
        elif one.missing:
            wrong = f"{user} can't make {one.missing}: {one.path} is of {one.owner}"
            yield Problem(node.name, wrong, f"on it: sudo install -d -o {user} {shlex.quote(one.missing)}")
    strange = [one for one in closed if not one.read_only and not one.missing and one.owner != user]
    locked = [one for one in closed if not one.read_only and not one.missing and one.owner == user]
    if strange:
        yield Problem(node.name, _unwritable(user, strange), f"on it: sudo chown -R {user}: {_paths(strange)}")
    if locked:
        yield Problem(node.name, _unwritable(user, locked), f"on it: chmod -R u+rwX {_paths(locked)}")


def _unwritable(user: str, closed: list[Closed]) -> str:
    return f"{user} can't write " + ", ".join(f"{one.path} (of {one.owner})" for one in closed)


def _paths(closed: list[Closed]) -> str:
    return shlex.join(one.path for one in closed)
