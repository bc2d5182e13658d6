"""What engines have compiled, in Docker volumes on this Spark: one for each model and image."""

from __future__ import annotations

import subprocess

from .docker import Docker, docker
from .models import models

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


NAME = "dgx-spark-compiled."
"""How their names begin; MODEL.COMMIT.IMAGE follow, with -- for / in MODEL (components/plan/engines/compiled.py)."""


def parts(volume: str) -> tuple[str, str, str]:
    """(model, commit, image), as the name has them."""
    model, commit, image = volume.removeprefix(NAME).rsplit(".", 2)
    return model, commit, image


def slug(repo: str) -> str:
    """A repository, or a directory with a model, as a volume's name has it."""
    return repo.strip("/").replace("/", "--")


def volumes() -> dict[str, int]:
    """Name → bytes; {} where Docker does not answer."""
    try:
        found = Docker().get("/system/df?type=volume")["Volumes"] or []
    except OSError:
        return {}
    return {
        volume["Name"]: max(0, (volume.get("UsageData") or {}).get("Size", 0))
        for volume in found
        if volume["Name"].startswith(NAME) and volume["Name"].count(".") >= 3
    }


def users(names: set[str]) -> dict[str, set[str]]:
    """Volume → stacks that use it: that have a container with it, or its model in place, and run its image."""
    containers: list[dict[str, Any]] = Docker().get("/containers/json?all=1") if names else []
    images = {container["ImageID"].removeprefix("sha256:")[:12] for container in containers}
    found: dict[str, set[str]] = {name: set() for name in names}
    for container in containers:
        for mount in container.get("Mounts") or []:
            if mount.get("Name") in found:
                found[mount["Name"]].add((container.get("Labels") or {}).get("dgx-spark.stack", container["Id"][:12]))
    for stack, repo in in_place():
        for name in names:
            model, _, image = parts(name)
            if model == slug(repo) and image in images:
                found[name].add(stack)
    return found


def in_place() -> set[tuple[str, str]]:
    """(stack, repository) of what stacks serve or have staged here."""
    return {(path.split("/")[-2].replace(".", "/"), record["model"]["repo"]) for path, record in models().items()}


def remove(names: set[str]) -> None:
    for name in names:
        docker("volume", "rm", "--force", name)


def remove_of(folder: str) -> None:
    """Of a model whose weights go, by their folder (shared/models.py, model_folder); one in use stays."""
    model = slug(folder.rpartition("/models--")[2] or folder)
    for name in volumes():
        if parts(name)[0] == model:
            subprocess.run(["docker", "volume", "rm", name], capture_output=True)
