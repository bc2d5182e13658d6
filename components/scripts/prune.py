"""Revisions of models in this Spark's Hugging Face cache, and what engines compiled for models: who uses them; and take
those away that nobody does.

stdin   JSON: cache (HF_HOME, may begin with ~), remove [[repo, commit]], volumes [name]
apply   stdout: JSON of what is there now: revisions [{repo, commit, bytes, used_by [stack]}], compiled [{volume, repo,
        bytes, used_by [stack]}]. `commit` is '' for what an interrupted download has left of a model without a single
        revision
"""

from __future__ import annotations

import glob
import json
import os
import shutil

from shared import compiled
from shared.files import read, trail
from shared.job import job
from shared.models import held, model_folder, models, references, remove_model, stored, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Compiled, Prune, Pruned, Revision


def users() -> dict:
    """Directory of a revision → stacks that serve it or have staged it."""
    found: dict = {}
    for path, record in models().items():
        stack = os.path.basename(os.path.dirname(path)).replace(".", "/")
        found.setdefault(record["model"]["path"], set()).add(stack)
    return found


def blobs(snapshot: str) -> set:
    names = (os.path.join(base, name) for base, _, files in os.walk(snapshot) for name in files)
    return {trail(name)[1] for name in names if os.path.islink(name)}


def frees(own: set) -> int:
    """Bytes that the removal of these blobs frees: not those of a file that another model shares."""
    alone = (blob for blob in own if not stored(blob) or references(stored(blob)) == {blob})
    return sum(os.path.getsize(blob) for blob in alone if os.path.exists(blob))


def revisions(folder: str) -> dict:
    """Commit → the blobs that no other revision has."""
    every = {os.path.basename(path): blobs(path) for path in glob.glob(os.path.join(folder, "snapshots", "*"))}
    return {
        commit: own - set().union(*(others for other, others in every.items() if other != commit))
        for commit, own in every.items()
    }


def listing(cache: str) -> list[Revision]:
    used = users()
    rows: list[Revision] = []
    for folder in sorted(glob.glob(os.path.join(cache, "hub", "models--*"))):
        repo = os.path.basename(folder).removeprefix("models--").replace("--", "/", 1)
        found = revisions(folder)
        if not found:
            rows.append({"repo": repo, "commit": "", "bytes": held(folder), "used_by": []})
        for commit, own in sorted(found.items()):
            stacks = sorted(used.get(os.path.join(folder, "snapshots", commit), ()))
            rows.append({"repo": repo, "commit": commit, "bytes": frees(own), "used_by": stacks})
    return rows


def remove(cache: str, repo: str, commit: str) -> None:
    folder = model_folder(cache, repo)
    own = revisions(folder).get(commit, set())
    if commit:
        shutil.rmtree(os.path.join(folder, "snapshots", commit))
    shared = {stored(blob) for blob in own} - {""}
    for blob in own:
        os.unlink(blob)
    for payload in shared:
        sweep(payload)
    for ref in glob.glob(os.path.join(folder, "refs", "**"), recursive=True):
        if os.path.isfile(ref) and read(ref) == commit:
            os.unlink(ref)
    if not glob.glob(os.path.join(folder, "snapshots", "*")):
        remove_model(folder)


def compilations() -> list[Compiled]:
    found = compiled.volumes()
    return [
        {
            "volume": name,
            "repo": compiled.parts(name)[0].replace("--", "/", 1),
            "bytes": found[name],
            "used_by": sorted(stacks),
        }
        for name, stacks in sorted(compiled.users(set(found)).items())
    ]


def main() -> None:
    inputs: Prune = job()[1]
    cache = os.path.expanduser(inputs["cache"])
    free = {(row["repo"], row["commit"]) for row in listing(cache) if not row["used_by"]}
    for repo, commit in inputs["remove"]:
        # A stack may have taken it since it was listed.
        if (repo, commit) in free:
            remove(cache, repo, commit)
    unused = {row["volume"] for row in compilations() if not row["used_by"]}
    compiled.remove(unused & set(inputs["volumes"]))
    left: Pruned = {"revisions": listing(cache), "compiled": compilations()}
    print(json.dumps(left))


main()
