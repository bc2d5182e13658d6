"""Hugging Face caches as their owners' own `hf download` leaves them, in both layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.utils._shared_blobs import SHARED_BLOBS_MARKER_NAME as SHARED
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store

__all__ = ["SHARED", "put", "sha256", "xet"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def xet(content: bytes) -> str:
    """A hash of the content that is as long as its sha256 and another one, as Xet's is."""
    return hashlib.blake2s(content).hexdigest()


def put(
    cache: Path, repo: str, commit: str, contents: Mapping[str, bytes], *, ref: str = "main", shared: bool = False
) -> Path:
    """The snapshot of one commit; `shared`: large files are links into the store of all models."""
    hub = cache / "hub"
    folder = hub / f"models--{repo.replace('/', '--')}"
    for name, content in contents.items():
        blob = folder / "blobs" / sha256(content)
        link = folder / "snapshots" / commit / name
        for path in (blob, link, folder / "refs" / ref):
            path.parent.mkdir(parents=True, exist_ok=True)
        above = "../" * (len(Path(name).parts) + 1)
        link.symlink_to(f"{above}blobs/{blob.name}")
        if shared and name.endswith(".safetensors"):
            share(hub, blob, content)
        else:
            blob.write_bytes(content)
    (folder / "refs" / ref).write_text(commit)
    return folder / "snapshots" / commit


def share(hub: Path, blob: Path, content: bytes) -> None:
    """Put the content into the store, once, and the link in the blob's place: huggingface_hub's own hand."""
    blob.write_bytes(content)
    done = publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=xet(content), cache_dir=hub, expected_size=len(content)
    )
    assert done
