"""Download one commit of a model with huggingface_hub, and go on where an interrupted download was.

Runs inside the engine's image, with whatever huggingface_hub that has. It never fetches whole files twice; of a file
that was interrupted recent versions keep nothing (each try has a name of its own: its pull request 4228), and with
eight files of 5 GB at a time that is most of many models. So each partial file gets a second name that outlives
the try, and the next try begins with what it holds. What arrived is verified afterwards (scripts/weights.py).
A cache has other users too: what an earlier try left and cannot be read, moved or removed costs the head start alone.

stdin   JSON: endpoint, repo, commit, token ('' for none), files [{path, size}], proxies (variable → value)
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import sys
from typing import Any, BinaryIO

HTTP_LIMIT = 50 * 10**9
"""Bytes. Larger files come by Xet alone, which keeps nothing of a file that it was interrupted in.
Source: huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE."""

BLOCK = 1 << 24


def take_up(partial: BinaryIO, expected: int | None) -> int:
    """Put into the empty file `partial` what an earlier try has left; bytes of it. Keeps it for a later try, too."""
    folder, name = os.path.split(partial.name)
    etag = name.split(".")[0]
    kept = os.path.join(folder, f"{etag}.kept.incomplete")
    with contextlib.suppress(OSError), open(kept, "rb") as earlier:
        if expected is None or os.fstat(earlier.fileno()).st_size <= expected:
            shutil.copyfileobj(earlier, partial, BLOCK)
    partial.flush()
    for old in glob.glob(os.path.join(folder, f"{etag}.*incomplete*")):
        if old not in (kept, partial.name):
            forget(old)
    with contextlib.suppress(OSError):
        os.link(partial.name, f"{kept}.new")
        os.replace(f"{kept}.new", kept)
    return partial.tell()


def forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def main() -> None:
    job = json.load(sys.stdin)
    os.environ.update(job["proxies"])
    os.environ["HF_ENDPOINT"] = job["endpoint"]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if all(file["size"] <= HTTP_LIMIT for file in job["files"]):
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    # A model's folder holds all of it: it can be copied and taken away without a look at the other models.
    os.environ["HF_HUB_DISABLE_SHARED_BLOBS"] = "1"
    # It reads the environment when it is imported.
    from huggingface_hub import file_download, snapshot_download

    get = file_download.http_get

    def resuming(url: str, temp_file: BinaryIO, **options: Any) -> None:
        if not options.get("resume_size"):
            options["resume_size"] = take_up(temp_file, options.get("expected_size"))
        if options["resume_size"] != options.get("expected_size"):
            get(url, temp_file, **options)
        folder, name = os.path.split(temp_file.name)
        forget(os.path.join(folder, f"{name.split('.')[0]}.kept.incomplete"))

    file_download.http_get = resuming
    paths = [file["path"] for file in job["files"]]
    snapshot_download(job["repo"], revision=job["commit"], token=job["token"] or False, allow_patterns=paths)


if __name__ == "__main__":
    main()
