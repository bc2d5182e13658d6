"""Images: what is in one."""

from __future__ import annotations

import hashlib
import json
import subprocess


def image_parts(about: dict) -> dict:
    """What an image is made of, from what `docker image inspect` says, in words that all of Docker's stores share:
    layers [digest of what is in one], config (digest of what a container gets beside them)."""
    config = about.get("Config") or {}
    parts = [config.get(key) or None for key in ("Env", "Entrypoint", "Cmd", "WorkingDir", "User")]
    digest = hashlib.sha256(json.dumps([*parts, about.get("Architecture")]).encode()).hexdigest()
    return {"layers": (about.get("RootFS") or {}).get("Layers") or [], "config": digest}


def inspected(*images: str) -> list[dict]:
    """What Docker says of those that are here."""
    done = subprocess.run(["docker", "image", "inspect", *images], capture_output=True, text=True)
    found: list[dict] = json.loads(done.stdout or "[]")
    return found


def layers_of(image: str) -> list[str]:
    """Digests of its layers, the lowest first; none where it is not here."""
    return [layer for about in inspected(image) for layer in image_parts(about)["layers"]]


def content_of(image: str) -> str:
    """Digest of an image's parts; '' where it is not here.

    Equal images have equal contents whatever keeps them, and not always equal ids: an id is the config's digest with
    Docker's storage drivers, the manifest's in containerd's image store, which new installations of Docker 29 have.
    """
    for about in inspected(image):
        parts = image_parts(about)
        return hashlib.sha256("\n".join([*parts["layers"], parts["config"]]).encode()).hexdigest()
    return ""
