"""Put one commit of a model into this Spark's Hugging Face cache, and verify every file.

From the hub: its own client does it, out of the engine's image and as the login user, so nothing is
installed on the Spark and no file ends up owned by root. From another Spark: rsync over the fabric with
the stack's own key (copy_key.py, copy_access.py). Both keep whole files and resume partial ones.

stdin   JSON: repo, commit, revision, files [{path, size, sha256}], encodings [{path, url, sha256}] (vocabularies
        that the engine would fetch), cache, path, keep, record, and
        from the hub: endpoint, image, token
        from another Spark: source (address, user, port, host_key)
stderr  progress; on failure the reason, last
remove  forgets the record; the files too unless `keep`
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request

from common import digest_of, from_head, has_record, held, key_file, model_folder, remove_record, run, say, write_record

CLIENT = """
import json, os, sys
job = json.load(sys.stdin)
os.environ["HF_ENDPOINT"] = job["endpoint"]
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
from huggingface_hub import snapshot_download
snapshot_download(job["repo"], revision=job["commit"], token=job["token"] or False, allow_patterns=job["files"])
"""
PROGRESS = 10
"""Seconds between two lines of progress."""


def folder(given: dict) -> str:
    return model_folder(given["cache"], given["repo"])


def download(given: dict) -> None:
    user = f"{os.getuid()}:{os.getgid()}"
    argv = ["docker", "run", "--rm", "--interactive", "--network=host", f"--user={user}"]
    argv += [f"--volume={given['cache']}:/hf", "--env=HF_HOME=/hf", "--env=HOME=/tmp", "--entrypoint=/usr/bin/env"]
    argv += [given["image"], "python3", "-c", CLIENT]
    order = {key: given[key] for key in ("endpoint", "repo", "commit", "token")}
    order["files"] = [file["path"] for file in given["files"]]
    execute(argv, f"{given['repo']}: the download failed", json.dumps(order))


def copy(given: dict, target: str) -> None:
    """`target`: a directory that the head has beside its models too."""
    source = given["source"]
    ssh = from_head(source, key_file(given["record"]["stack"], "copy-key"))
    argv = ["rsync", "--archive", "--no-owner", "--no-group", "--partial", "--mkpath", "--exclude=*.incomplete"]
    # The path is relative to the one directory that the key may read.
    there = f"{source['user']}@{source['address']}:{os.path.basename(target)}/"
    execute([*argv, "--rsh", shlex.join(ssh), there, f"{target}/"], f"{given['repo']}: the copy from the head failed")


def place_encodings(given: dict) -> None:
    wrong = [encoding for encoding in given["encodings"] if digest_of(encoding["path"]) != encoding["sha256"]]
    if wrong and "source" in given:
        copy(given, os.path.dirname(wrong[0]["path"]))
    elif wrong:
        os.makedirs(os.path.dirname(wrong[0]["path"]), exist_ok=True)
        for encoding in wrong:
            fetch(encoding)
    for encoding in given["encodings"]:
        if digest_of(encoding["path"]) != encoding["sha256"]:
            sys.exit(f"{encoding['url']} is not the vocabulary that was expected (sha256 {encoding['sha256'][:12]}…)")


def fetch(encoding: dict) -> None:
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


def report(given: dict, stop: threading.Event) -> None:
    """Rate and time left, from what is on the disk."""
    total, before = sum(file["size"] for file in given["files"]), held(given["cache"], given["repo"])
    while not stop.wait(PROGRESS):
        now = held(given["cache"], given["repo"])
        rate = (now - before) / PROGRESS
        left = f", {(total - now) / rate / 60:.0f} min left" if rate > 0 else ""
        say(f"{given['repo']}: {now / 1e9:.1f} of {total / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left}")
        before = now


def broken(given: dict) -> list:
    """Files that are missing, of another size, or of other content than the hub says."""
    return [file["path"] for file in given["files"] if not whole(os.path.join(given["path"], file["path"]), file)]


def whole(path: str, file: dict) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) != file["size"]:
        return False
    return not file["sha256"] or digest_of(path) == file["sha256"]


def forget(given: dict, names: list) -> None:
    """Take away broken files and their blobs, so that they come anew."""
    for name in names:
        path = os.path.join(given["path"], name)
        for doomed in {path, os.path.realpath(path)}:
            if os.path.lexists(doomed):
                os.unlink(doomed)


def place(given: dict) -> None:
    stop = threading.Event()
    reporter = threading.Thread(target=report, args=(given, stop), daemon=True)
    reporter.start()
    try:
        copy(given, folder(given)) if "source" in given else download(given)
    finally:
        stop.set()
        reporter.join()


def apply(given: dict) -> None:
    if has_record(given["record"]):
        # Only the means changed (another image, a new token): reading 100 GB again would prove nothing new.
        say(f"{given['repo']}@{given['commit'][:12]}: in place")
        return
    wrong = broken(given)
    if wrong:
        forget(given, wrong)
        place(given)
        wrong = broken(given)
    if wrong:
        forget(given, wrong)
        sys.exit(f"{given['repo']}: {', '.join(wrong)} arrived damaged and was removed; run `pulumi up` again")
    place_encodings(given)
    sizes = {os.path.join(given["path"], file["path"]): file["size"] for file in given["files"]}
    sizes |= {encoding["path"]: os.path.getsize(encoding["path"]) for encoding in given["encodings"]}
    model = {key: given[key] for key in ("repo", "revision", "commit", "files", "path")}
    write_record(given["record"], {"files": sizes}, model=model)
    say(f"{given['repo']}@{given['commit'][:12]}: {len(sizes)} files verified")


def remove(given: dict) -> None:
    remove_record(given["record"])
    if not given["keep"]:
        shutil.rmtree(folder(given), ignore_errors=True)
        locks = os.path.join(given["cache"], "hub", ".locks", os.path.basename(folder(given)))
        shutil.rmtree(locks, ignore_errors=True)


run(apply, remove)
