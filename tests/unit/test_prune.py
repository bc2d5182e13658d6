"""`prune.py`: what no stack uses goes, and nothing else."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.unit.home import STACK


def put(home, repo, commit, contents, *, ref=None):
    folder = home.path / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path in (snapshot, folder / "blobs", folder / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{blob.name}")
    if ref:
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def used(home, snapshot):
    folder = home.path / ".local/state/dgx-spark" / STACK.replace("/", ".")
    folder.mkdir(parents=True)
    model = {"path": str(snapshot), "repo": "a/b", "commit": snapshot.name, "files": []}
    (folder / "weights.json").write_text(json.dumps({"spec": "s", "model": model}))


def prune(home, *remove):
    done = home.run("prune.py", "apply", cache=str(home.path), remove=remove, volumes=[])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["revisions"]


@pytest.fixture
def cache(home):
    """a/b in two revisions that share a file, the newer one in use; c/d in one; e/f interrupted."""
    put(home, "a/b", "old", {"config.json": b"same", "w": b"old weights"})
    used(home, put(home, "a/b", "new", {"config.json": b"same", "w": b"new"}, ref="main"))
    put(home, "c/d", "one", {"w": b"12345"}, ref="main")
    partial = home.path / "hub/models--e--f/blobs/abc.kept.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 8192)
    return home


def test_each_revision_is_listed_with_its_own_bytes_and_its_stacks(cache):
    rows = {(row["repo"], row["commit"]): row for row in prune(cache)}
    assert rows["a/b", "new"]["used_by"] == [STACK]
    assert rows["a/b", "old"] == {"repo": "a/b", "commit": "old", "bytes": len(b"old weights"), "used_by": []}
    assert rows["c/d", "one"]["bytes"] == 5
    assert rows["e/f", ""]["bytes"] >= 8192


def test_what_goes_takes_nothing_with_it_that_another_revision_needs(cache):
    assert [(row["repo"], row["commit"]) for row in prune(cache, ["a/b", "old"], ["c/d", "one"], ["e/f", ""])] == [
        ("a/b", "new")
    ]
    left = cache.path / "hub"
    assert sorted(path.name for path in left.iterdir()) == ["models--a--b"]
    assert (left / "models--a--b/snapshots/new/config.json").read_bytes() == b"same"
    assert len(list((left / "models--a--b/blobs").iterdir())) == 2
    assert (left / "models--a--b/refs/main").read_text() == "new"


def test_what_a_stack_uses_stays_whatever_was_asked(cache):
    prune(cache, ["a/b", "new"])
    assert (cache.path / "hub/models--a--b/snapshots/new/w").read_bytes() == b"new"
