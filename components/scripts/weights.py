"""Put one commit of a model onto this Spark, mostly into its Hugging Face cache, and verify every file.

From the hub: its own client does it, out of the engine's image and as the login user, so nothing is
installed on the Spark and no file ends up owned by root. From another Spark: rsync over the fabric with
the stack's own key (copy_key.py, copy_access.py). Both keep whole files and resume partial ones.

stdin   JSON: repo, commit, revision, files [{path, size, sha256}], encodings [{path, url, sha256}] (vocabularies
        that the engine would fetch), path (where the files are), folder (all that there is of the model), record,
        loaded (where it is known: bytes that the weights take in memory; goes into the record),
        keep (leave the files when the record is removed), and one of
        from the hub: endpoint, image, token, cache (HF_HOME)
        from another Spark: source (shared/head.py; also model and encodings: what its key may read, relative)
        neither: the files are there already, or are an error
stderr  progress; on failure the reason, last
remove  forgets the record. Unless `keep`, the files go when the Spark is handed back (node.py), and not before: a model
        that is switched away from may be needed again in a moment
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from shared.files import digest_of, stamp, trail
from shared.head import from_head, key_file
from shared.job import run, say
from shared.models import held, models
from shared.records import has_record, holds, remove_record, write_record
from shared.state import discards, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Encoding, File, Weights

PROGRESS = 10
"""Seconds between two lines of progress."""

READERS = 4
"""Files that are verified at a time; more than one, because a checksum is slower than the disk."""


def download(inputs: Weights) -> None:
    user = f"{os.getuid()}:{os.getgid()}"
    argv = ["docker", "run", "--rm", "--interactive", "--network=host", f"--user={user}"]
    argv += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
    argv += [f"--volume={inputs['cache']}:/hf", "--env=HF_HOME=/hf", "--env=HOME=/tmp", "--entrypoint=/usr/bin/env"]
    argv += [inputs["image"], "python3", "-c", program(inputs["record"]["stack"], "download.py")]
    order = {key: inputs[key] for key in ("endpoint", "repo", "commit", "token", "files")}
    execute(argv, f"{inputs['repo']}: the download failed", json.dumps(order))


def copy(inputs: Weights, there: str, here: str, whole: list) -> None:
    """What is missing or another, and of links that leave the folder what they lead to.

    there  relative to the one directory on the head that the key may read
    whole  files of `here` that must stay as they are, although they are links
    """
    try:
        os.makedirs(here, exist_ok=True)
    except PermissionError:
        user = os.path.basename(os.path.expanduser("~"))
        sys.exit(f"{here} can't be made: on this Spark, sudo install -d -o {user} {here}")
    source = inputs["source"]
    ssh = from_head(source, key_file(inputs["record"]["stack"], "copy-key"))
    argv = ["rsync", "--archive", "--no-owner", "--no-group", "--copy-unsafe-links", "--exclude=*.incomplete"]
    argv += [f"--exclude=/{name}" for name in whole]
    # What had come before a power cut is not sent again: it is written in place, for which it must be writable.
    argv += ["--inplace", "--chmod=Fu+w"]
    remote = f"{source['user']}@{source['address']}:{there}/"
    execute([*argv, "--rsh", shlex.join(ssh), remote, f"{here}/"], f"{inputs['repo']}: the copy from the head failed")


def place_encodings(inputs: Weights) -> None:
    wrong = [encoding for encoding in inputs["encodings"] if digest_of(encoding["path"]) != encoding["sha256"]]
    there = inputs.get("source", {}).get("encodings")
    if wrong and there:
        copy(inputs, there, os.path.dirname(wrong[0]["path"]), [])
    elif wrong:
        os.makedirs(os.path.dirname(wrong[0]["path"]), exist_ok=True)
        for encoding in wrong:
            fetch(encoding)
    for encoding in inputs["encodings"]:
        if digest_of(encoding["path"]) != encoding["sha256"]:
            sys.exit(f"{encoding['url']} is not the vocabulary that was expected (sha256 {encoding['sha256'][:12]}…)")


def fetch(encoding: Encoding) -> None:
    partial = f"{encoding['path']}.partial"
    try:
        with urllib.request.urlopen(encoding["url"], timeout=60) as answer, open(partial, "wb") as stream:
            shutil.copyfileobj(answer, stream)
    except OSError as error:
        sys.exit(f"{encoding['url']} can't be fetched: {error}; a mirror goes into weights.encodings")
    os.replace(partial, encoding["path"])


def execute(argv: list, failure: str, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        sys.exit(f"{failure}: {' | '.join(lines[-3:])}")


def report(inputs: Weights, stop: threading.Event) -> None:
    """Rate and time left, from what is on the disk."""
    total, before = sum(file["size"] for file in inputs["files"]), held(inputs["folder"])
    while not stop.wait(PROGRESS):
        now = held(inputs["folder"])
        rate = (now - before) / PROGRESS
        left = f", {(total - now) / rate / 60:.0f} min left" if rate > 0 else ""
        say(f"{inputs['repo']}: {now / 1e9:.1f} of {total / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left}")
        before = now


def broken(inputs: Weights) -> list:
    """Paths that are missing, of another size, or of other content than the hub says."""
    with ThreadPoolExecutor(READERS) as pool:
        fine = list(pool.map(lambda file: whole(os.path.join(inputs["path"], file["path"]), file), inputs["files"]))
    return [file["path"] for file, right in zip(inputs["files"], fine, strict=True) if not right]


def whole(path: str, file: File) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) != file["size"]:
        return False
    return not file["sha256"] or digest_of(path) == file["sha256"]


def stay(inputs: Weights, wrong: list) -> list:
    """Blobs of whole files that are links themselves, into the store of all models: rsync would put files in their
    place, and the same bytes on the disk twice."""
    paths = [os.path.join(inputs["path"], file["path"]) for file in inputs["files"] if file["path"] not in wrong]
    trails = [trail(path) for path in paths]
    return [os.path.relpath(found[1], os.path.realpath(inputs["folder"])) for found in trails if len(found) > 2]


def forget(inputs: Weights, names: list) -> None:
    """Take away what would be taken for whole and is not, so that it comes anew.

    rsync mends whatever differs in size, sending only what differs; the hub's client trusts every file that it finds.
    """
    sizes = {file["path"]: file["size"] for file in inputs["files"]}
    for name in names:
        path = os.path.join(inputs["path"], name)
        if "source" in inputs and not (os.path.exists(path) and os.path.getsize(path) == sizes[name]):
            continue
        for doomed in trail(path):
            if os.path.lexists(doomed):
                os.unlink(doomed)


def place(inputs: Weights, wrong: list) -> None:
    stop = threading.Event()
    reporter = threading.Thread(target=report, args=(inputs, stop), daemon=True)
    reporter.start()
    try:
        if "source" in inputs:
            copy(inputs, inputs["source"]["model"], inputs["folder"], stay(inputs, wrong))
        else:
            download(inputs)
    finally:
        stop.set()
        reporter.join()
    free_page_cache()


def free_page_cache() -> None:
    """GB10's GPU has no memory of its own, and what the page cache holds it may not get.

    Source: NVIDIA's DGX Spark playbooks, troubleshooting of memory. Where sudo asks for a password, the files that
    are verified next are let go one by one (shared/files.py).
    """
    os.sync()
    subprocess.run(["sh", "-c", "echo 3 | sudo -n tee /proc/sys/vm/drop_caches"], capture_output=True)


def apply(inputs: Weights) -> None:
    if has_record(inputs["record"]) or vouched(inputs):
        # Only the means changed (another image, a new token), or it was staged: reading 100 GB again proves nothing.
        say(f"{inputs['repo']}@{inputs['commit'][:12]}: in place")
    else:
        verify(inputs)
    place_encodings(inputs)
    paths = [os.path.join(inputs["path"], file["path"]) for file in inputs["files"]]
    paths += [encoding["path"] for encoding in inputs["encodings"]]
    known = {key: inputs[key] for key in ("repo", "revision", "commit", "files", "path")}
    # So that a later preview estimates the memory as this one did, without asking the hub.
    model = {**known, "loaded": inputs.get("loaded", 0)}
    write_record(inputs["record"], {"files": {path: stamp(path) for path in paths}}, model=model)


def verify(inputs: Weights) -> None:
    wrong = broken(inputs)
    if wrong and not {"endpoint", "source"} & set(inputs):
        sys.exit(f"{inputs['path']} lacks, or has damaged: {', '.join(wrong)}; and nothing says where to get it from")
    if wrong:
        forget(inputs, wrong)
        place(inputs, wrong)
        wrong = broken(inputs)
    if wrong:
        forget(inputs, wrong)
        sys.exit(f"{inputs['repo']}: {', '.join(wrong)} arrived damaged; run `pulumi up` again")
    say(f"{inputs['repo']}@{inputs['commit'][:12]}: {len(inputs['files'])} files verified")


def vouched(inputs: Weights) -> bool:
    """Has another stack, or this one when it staged the model, verified these very files?"""
    about = {key: inputs[key] for key in ("commit", "files", "path")}
    names = {os.path.join(inputs["path"], file["path"]) for file in inputs["files"]}
    return any(
        all(record["model"][key] == value for key, value in about.items())
        and holds({"files": {p: s for p, s in record["checks"]["files"].items() if p in names}}, set())
        for record in models().values()
    )


def remove(inputs: Weights) -> None:
    remove_record(inputs["record"])
    if not inputs["keep"]:
        with open(discards(inputs["record"]["stack"]), "a") as stream:
            print(inputs["folder"], file=stream)


run(apply, remove)
