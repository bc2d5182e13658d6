"""Models in a Hugging Face cache."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil

from .files import read
from .state import STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass


def model_folder(cache: str, repo: str) -> str:
    """Where huggingface_hub keeps a repository below HF_HOME; a directory (an absolute path) is its own."""
    return repo if repo.startswith("/") else os.path.join(cache, "hub", f"models--{repo.replace('/', '--')}")


def models() -> dict:
    """Record file → record, of every model that a stack serves or has staged on this Spark."""
    found = {path: json.loads(read(path) or "{}") for path in glob.glob(os.path.join(STATE, "*", "*.json"))}
    return {path: record for path, record in found.items() if "model" in record}


def held(folder: str) -> int:
    """Bytes of a model on disk, parts of interrupted downloads included, and what it shares with others."""
    sizes = {}
    for base, _, names in os.walk(folder):
        for name in names:
            # A download renames its files, and a link may lead nowhere.
            with contextlib.suppress(OSError):
                about = os.stat(os.path.join(base, name))
                # A file may have several names.
                sizes[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(sizes.values())


def remove_model(folder: str) -> None:
    """With the locks that huggingface_hub keeps beside it, and what no other model shares with it."""
    shared = {stored(blob) for blob in glob.glob(os.path.join(glob.escape(folder), "blobs", "*"))}
    shutil.rmtree(folder, ignore_errors=True)
    hub, name = os.path.split(folder)
    shutil.rmtree(os.path.join(hub, ".locks", name), ignore_errors=True)
    for payload in shared - {""}:
        sweep(payload)


STORE_MARK = ".huggingface-shared-blobs"


def stored(blob: str) -> str:
    """The file to which a model's blob is a link, in the store that all models of a cache share; '' for none.

    A payload hub/blobs/XY/HASH is named by Xet's hash and not by its sha256; HASH.refs lists the blobs that are links
    to it, HASH.lock is locked by whoever changes one. Source: huggingface_hub ≥ 1.32, utils/_shared_blobs.py.
    """
    if not os.path.islink(blob):
        return ""
    store = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(blob))), "blobs")
    target = os.path.normpath(os.path.join(os.path.dirname(blob), os.readlink(blob)))
    below = os.path.dirname(os.path.dirname(target)) == store
    return target if below and read(os.path.join(store, STORE_MARK)) == "1" else ""


def references(payload: str) -> set[str] | None:
    """The blobs that are links to a stored file; None where no account was kept, so that there may be any."""
    hub = os.path.dirname(os.path.dirname(os.path.dirname(payload)))
    try:
        with open(f"{payload}.refs") as stream:
            blobs = [os.path.join(hub, line.strip()) for line in stream]
    except OSError:
        return None
    return {blob for blob in blobs if stored(blob) == payload}


def sweep(payload: str) -> None:
    """Take a stored file away unless a model still has it. One that is not ours to remove stays, as with `hf cache`."""
    with contextlib.suppress(OSError), open(f"{payload}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if references(payload) == set():
            os.unlink(payload)
            os.unlink(f"{payload}.refs")
