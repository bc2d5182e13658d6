"""Put one commit of a model onto this Spark, mostly into its Hugging Face cache, and verify every file.

From the hub: its own client does it, out of the engine's image and as the login user, so nothing is
installed on the Spark and no file ends up owned by root. From the Spark before this one: over the fabric with the
stack's own key (copy_key.py, copy_access.py), while that one receives it itself (copy_server.py). Both keep whole
files and resume partial ones. Of what is copied, a file has its name here once its checksum is right.

stdin   JSON: repo, commit, revision, files [{path, size, sha256}], encodings [{path, url, sha256}] (vocabularies
        that the engine would fetch), path (where the files are), folder (all that there is of the model), record,
        loaded (where it is known: bytes that the weights take in memory; goes into the record),
        offline (where it is so: nothing is fetched),
        keep (leave the files when the record is removed), and one of
        from the hub: endpoint, image, token, cache (HF_HOME)
        from another Spark: source (shared/upstream.py; also model and encodings: what its key may read, relative)
        neither: the files are there already, or are an error
stderr  progress; on failure the reason, last
remove  forgets the record. Unless `keep`, the files go when the Spark is handed back (node.py), and not before: a model
        that is switched away from may be needed again in a moment
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from shared.docker import attended
from shared.files import digest_of, let_go, read, stamp, trail
from shared.job import run, say
from shared.models import held, models
from shared.progress import Count, Progress
from shared.proxies import proxies
from shared.records import has_record, holds, remove_record, write_record
from shared.state import discards, program
from shared.upstream import AGAIN, PARTIAL, key_file, receiving, ssh_upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from contracts import Encoding, File, Weights

SMALL = 1 << 20
"""Bytes: up to here rsync brings a file, with the folder that it is in."""

STREAMS = 4
"""Large files that are received at a time: one ssh encrypts no faster than one core can."""

TRIES = 2
"""A part that is left of a former copy may not be what its file begins with: then it comes again from its beginning."""

BLOCK = 1 << 20

WRITTEN = 256 << 20
"""Bytes of a file that are received before they are written out: little is left to write when the last ones come."""

LOOK = 1.0
"""Seconds between two looks at what has arrived."""


def download(inputs: Weights) -> None:
    attended()
    user = f"{os.getuid()}:{os.getgid()}"
    argv = ["docker", "run", "--rm", "--interactive", "--network=host", f"--user={user}"]
    argv += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
    argv += [f"--volume={inputs['cache']}:/hf", "--env=HF_HOME=/hf", "--env=HOME=/tmp", "--entrypoint=/usr/bin/env"]
    argv += [inputs["image"], "python3", "-c", program(inputs["record"]["stack"], "download.py")]
    # By stdin: `docker inspect` shows a container's environment, and a proxy's URL may hold a password.
    order = {"proxies": proxies(), **{key: inputs[key] for key in ("endpoint", "repo", "commit", "token", "files")}}
    total = sum(file["size"] for file in inputs["files"])
    with Progress("downloading", inputs["repo"], lambda: total, lambda: held(inputs["folder"])):
        execute(argv, f"{inputs['repo']}: the download failed", json.dumps(order))


def make(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except PermissionError:
        user = os.path.basename(os.path.expanduser("~"))
        sys.exit(f"{folder} can't be made: on this Spark, sudo install -d -o {user} {folder}")


def copy_folder(inputs: Weights, whole: list) -> None:
    """The model's folder but for its large files: links, and of those that leave the folder what they lead to.

    whole  files that must stay as they are, although they are links
    """
    folder, source = inputs["folder"], inputs["source"]
    make(folder)
    Receiver(inputs).wait()
    argv = ["rsync", "--archive", "--no-owner", "--no-group", "--copy-unsafe-links", "--exclude=*.incomplete"]
    argv += [f"--exclude=/{name}" for name in whole]
    if inputs["path"] != folder:
        # Of other commits their large files would be missing.
        argv += [f"--include=/snapshots/{inputs['commit']}", "--exclude=/snapshots/*"]
    # What is cut off later is written to again, for which it must be writable.
    argv += [f"--max-size={SMALL}", "--chmod=Fu+w"]
    ssh = ssh_upstream(source, key_file(inputs["record"]["stack"], "copy-key"))
    remote = f"{source['user']}@{source['address']}:{source['model']}/"
    execute([*argv, "--rsh", shlex.join(ssh), remote, f"{folder}/"], f"{inputs['repo']}: the copy failed")
    forget_names(folder)


def forget_names(folder: str) -> None:
    """Branches and tags whose commit is not here: the hub's client takes a cache with one for damaged."""
    for base, _, names in os.walk(os.path.join(folder, "refs")):
        for path in (os.path.join(base, name) for name in names):
            if not os.path.isdir(os.path.join(folder, "snapshots", read(path))):
                os.unlink(path)


class Receiver:
    """Gets single files from the Spark before this one."""

    def __init__(self, inputs: Weights) -> None:
        self._inputs, source = inputs, inputs["source"]
        ssh = ssh_upstream(source, key_file(inputs["record"]["stack"], "copy-key"))
        self._argv = [*ssh, "-l", source["user"], source["address"]]
        self.count = Count()

    def receive(self, there: str, name: str, path: str, size: int, sha256: str | None) -> None:
        """Put a file where `path` is; ends the script where its checksum is wrong, or it does not come.

        there, name  of the folder and the file on the other Spark, as its key may ask for them
        size         0: nobody knows
        """
        make(os.path.dirname(path))
        partial = path + PARTIAL
        for _ in range(TRIES):
            try:
                digest, code, said = self._fill(partial, there, name, size)
            except OSError as error:
                sys.exit(f"{path}: {error.strerror}")
            if code not in (0, AGAIN):
                why = said.rstrip(".") or f"ssh ended with {code}"
                sys.exit(f"{self._inputs['repo']}: the copy failed: {why}; run `pulumi up` again")
            if code == 0 and (digest == sha256 or (not sha256 and size in (0, os.path.getsize(partial)))):
                os.replace(partial, path)
                return
            self.count.add(-os.path.getsize(partial))
            os.unlink(partial)
        sys.exit(f"{name}: arrived damaged; run `pulumi up` again")

    def wait(self) -> None:
        """Until the other Spark has begun to have this commit."""
        file = min(self._inputs["files"], key=lambda file: file["size"])
        name = os.path.relpath(path_of(self._inputs, file), self._inputs["folder"])
        asked = shlex.join(["send", self._inputs["source"]["model"], *[str(file["size"])] * 2, name])
        execute([*self._argv, asked], f"{self._inputs['repo']}: the copy failed")

    def _fill(self, partial: str, there: str, name: str, size: int) -> tuple:
        """(sha256 of all that is there then, ssh's exit code, its last words); what is there already is not sent."""
        digest = hashlib.sha256()
        with open(partial, "a+b", buffering=0) as stream:
            if size and stream.tell() > size:
                stream.truncate(0)
            stream.seek(0)
            while block := stream.read(BLOCK):
                self._take(block, digest)
            asked = shlex.join(["send", there, str(stream.tell()), str(size), name])
            with subprocess.Popen([*self._argv, asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ssh:
                assert ssh.stdout
                assert ssh.stderr
                unwritten = 0
                while block := os.read(ssh.stdout.fileno(), BLOCK):
                    stream.write(block)
                    self._take(block, digest)
                    unwritten += len(block)
                    if unwritten >= WRITTEN:
                        os.fdatasync(stream.fileno())
                        unwritten = 0
                said = ssh.stderr.read().decode(errors="replace").strip().splitlines()
        return digest.hexdigest(), ssh.returncode, said[-1] if said else ""

    def _take(self, block: bytes, digest: hashlib._Hash) -> None:
        digest.update(block)
        self.count.add(len(block))


def receive_all(inputs: Weights, files: list) -> None:
    """`files` of the model, several at a time, each under its name once it is whole."""
    folder, receiver = os.path.realpath(inputs["folder"]), Receiver(inputs)

    def receive(file: File) -> None:
        # Where the folder's links lead, so that the bytes are there once.
        path = trail(os.path.join(inputs["path"], file["path"]))[-1]
        name = os.path.relpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)), folder)
        receiver.receive(inputs["source"]["model"], name, path, file["size"], file["sha256"])

    total = sum(file["size"] for file in files)
    with Progress("copying", inputs["repo"], lambda: total, lambda: receiver.count.value):
        at_once(receive, files, STREAMS)


def at_once(do: Callable[[Any], Any], things: list, number: int) -> list:
    """What `do` makes of each, `number` at a time; after one that fails no other is begun."""
    with ThreadPoolExecutor(number) as pool:
        begun = [pool.submit(do, thing) for thing in things]
        try:
            return [one.result() for one in begun]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def place_encodings(inputs: Weights) -> None:
    there = inputs.get("source", {}).get("encodings")
    for encoding in inputs["encodings"]:
        folder, name = os.path.split(encoding["path"])
        if digest_of(encoding["path"]) == encoding["sha256"]:
            continue
        if there:
            Receiver(inputs).receive(there, name, encoding["path"], 0, encoding["sha256"])
        elif inputs.get("offline"):
            sys.exit(
                f"{encoding['path']} is not there, or damaged, and weights.offline fetches nothing: "
                f"put the file of {encoding['url']} there (sha256 {encoding['sha256']})"
            )
        else:
            make(folder)
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


def right(inputs: Weights, file: File, seen: Callable[[int], None] = lambda _: None) -> bool:
    """Is it there, of the size and the content that the hub says?"""
    return right_size(inputs, file) and file["sha256"] in (None, digest_of(path_of(inputs, file), seen))


def broken(inputs: Weights, files: list) -> list:
    """Those that are not right."""
    count = Count()
    total = sum(file["size"] for file in files if file["sha256"] and right_size(inputs, file))
    with Progress("verifying", inputs["repo"], lambda: total, lambda: count.value):
        fine = at_once(lambda file: right(inputs, file, count.add), files, os.cpu_count() or 1)
    return [file for file, whole in zip(files, fine, strict=True) if not whole]


def broken_after(bring: Callable[[], None], inputs: Weights, files: list) -> list:
    """Those that are not right when `bring` has ended; each is read as soon as it is there, while others still come."""
    over, read_once, fine = threading.Event(), set(), set()

    def look() -> None:
        while not over.wait(LOOK):
            for file in files:
                # The hub's client gives a file its name when all of it has come.
                if file["path"] not in read_once and right_size(inputs, file) and not over.is_set():
                    read_once.add(file["path"])
                    if right(inputs, file):
                        fine.add(file["path"])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        bring()
    finally:
        over.set()
        looking.join()
    return broken(inputs, [file for file in files if file["path"] not in fine])


def path_of(inputs: Weights, file: File) -> str:
    return os.path.join(inputs["path"], file["path"])


def right_size(inputs: Weights, file: File) -> bool:
    path = path_of(inputs, file)
    return os.path.isfile(path) and os.path.getsize(path) == file["size"]


def stay(inputs: Weights, wrong: list) -> list:
    """Blobs of whole files that are links themselves, into the store of all models: rsync would put files in their
    place, and the same bytes on the disk twice."""
    trails = [trail(path_of(inputs, file)) for file in inputs["files"] if file not in wrong]
    return [os.path.relpath(found[1], os.path.realpath(inputs["folder"])) for found in trails if len(found) > 2]


def forget(inputs: Weights, files: list) -> None:
    """Take away what would be taken for whole and is not: the hub's client trusts every file that it finds."""
    for file in files:
        for doomed in trail(path_of(inputs, file)):
            if os.path.lexists(doomed):
                os.unlink(doomed)


def set_aside(inputs: Weights, files: list) -> None:
    """Take from what is not whole its name. What is shorter may be a beginning, on which a copy goes on; where a link
    leads out of the folder, a file comes in its place."""
    top = os.path.realpath(inputs["folder"])

    def inside(path: str) -> bool:
        return f"{os.path.realpath(os.path.dirname(path))}/".startswith(f"{top}/")

    for file in files:
        found = trail(path_of(inputs, file))
        size = os.path.getsize(found[-1]) if os.path.isfile(found[-1]) else -1
        for link, target in itertools.pairwise(found):
            if inside(link) and not inside(target):
                os.unlink(link)
        if inside(found[-1]) and file["size"] > SMALL and 0 < size < file["size"]:
            os.replace(found[-1], found[-1] + PARTIAL)
        elif size >= 0 and (inside(found[-1]) or size == file["size"]):
            os.unlink(found[-1])


def free_page_cache(inputs: Weights) -> None:
    """GB10's GPU has no memory of its own, and what the page cache holds it may not get.

    Source: NVIDIA's DGX Spark playbooks, troubleshooting of memory. Where sudo asks for a password, the model's own
    files are let go at least.
    """
    for file in inputs["files"]:
        let_go(path_of(inputs, file))
    subprocess.run(["sh", "-c", "echo 3 | sudo -n tee /proc/sys/vm/drop_caches"], capture_output=True)


def apply(inputs: Weights) -> None:
    if has_record(inputs["record"]) or vouched(inputs):
        # Only the means changed (another image, a new token), or it was staged: reading 100 GB again proves nothing.
        say(f"{inputs['repo']}@{inputs['commit'][:12]}: in place")
    else:
        place(inputs)
        say(f"{inputs['repo']}@{inputs['commit'][:12]}: {len(inputs['files'])} files verified")
    place_encodings(inputs)
    paths = [path_of(inputs, file) for file in inputs["files"]]
    paths += [encoding["path"] for encoding in inputs["encodings"]]
    known = {key: inputs[key] for key in ("repo", "revision", "commit", "files", "path")}
    # So that a later preview estimates the memory as this one did, without asking the hub.
    model = {**known, "loaded": inputs.get("loaded", 0)}
    write_record(inputs["record"], {"files": {path: stamp(path) for path in paths}}, model=model)


def place(inputs: Weights) -> None:
    if "source" in inputs:
        with receiving(inputs["record"]["stack"], os.path.normpath(inputs["folder"])) as announce:
            copy(inputs, announce)
        return
    wrong = broken(inputs, inputs["files"])
    if wrong and "endpoint" not in inputs:
        names = ", ".join(file["path"] for file in wrong)
        sys.exit(f"{inputs['path']} lacks, or has damaged: {names}; and nothing says where to get it from")
    if wrong:
        forget(inputs, wrong)
        wrong = broken_after(lambda: download(inputs), inputs, wrong)
        free_page_cache(inputs)
    if wrong:
        forget(inputs, wrong)
        names = ", ".join(file["path"] for file in wrong)
        sys.exit(f"{inputs['repo']}: {names} arrived damaged; run `pulumi up` again")


def copy(inputs: Weights, announce: Callable[[], None]) -> None:
    """From the Spark before this one; `announce`: from now on what has its name here is whole."""
    files = inputs["files"]
    wrong = broken(inputs, files)
    if not wrong:
        return
    set_aside(inputs, wrong)
    copy_folder(inputs, stay(inputs, wrong))
    announce()
    missing = broken(inputs, wrong)
    missing += [file for file in files if file not in wrong and not right_size(inputs, file)]
    receive_all(inputs, missing)
    free_page_cache(inputs)


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
