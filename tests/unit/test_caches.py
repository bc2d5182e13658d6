"""A user's own cache is taken over as it is, copied whole and tidied up without harm, in both of its layouts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit import caches
from tests.unit.home import STACK, Home, probe, record

WEIGHTS = {"config.json": b"{}", "a.safetensors": b"aaaa" * 4096, "deep/b.safetensors": b"bbbb" * 4096}
COMMIT = "c" * 40

both_layouts = pytest.mark.parametrize("shared", [False, True], ids=["old layout", "new layout"])


def weights(home, snapshot, folder, contents=WEIGHTS, verb="apply", **means):
    files = [
        {"path": path, "size": len(content), "sha256": caches.sha256(content) if "safetensors" in path else None}
        for path, content in contents.items()
    ]
    about = {"repo": "a/b", "commit": COMMIT, "revision": None, "files": files, "encodings": []}
    return home.run(
        "weights.py",
        verb,
        **about,
        folder=str(folder),
        path=str(snapshot),
        keep=True,
        record=record("weights"),
        **means,
    )


@both_layouts
def test_a_users_own_download_is_taken_over_and_nothing_is_fetched(home, shared):
    snapshot = caches.put(home.path, "a/b", COMMIT, WEIGHTS, shared=shared)
    done = weights(home, snapshot, snapshot.parent.parent)
    assert "3 files verified" in done.stderr


@both_layouts
def test_what_is_there_counts_as_there_and_its_checksums_are_its_contents(home, shared):
    caches.put(home.path, "a/b", COMMIT, WEIGHTS, shared=shared)
    found = probe(home, {"repo": "a/b", "revision": None})
    checksums = {file["path"]: file["sha256"] for file in found["present"]["files"]}
    assert checksums["a.safetensors"] == caches.sha256(WEIGHTS["a.safetensors"])
    assert checksums["deep/b.safetensors"] == caches.sha256(WEIGHTS["deep/b.safetensors"])
    # Otherwise the disk would seem too small for a model that it holds.
    held = found["cache"]["held"]["a/b"]
    assert all(held[caches.sha256(content)] >= 16384 for name, content in WEIGHTS.items() if "safetensors" in name)


def test_a_link_by_another_name_is_no_checksum(home):
    mine = home.path / "mine"
    snapshot = caches.put(home.path, "a/b", COMMIT, WEIGHTS, shared=True)
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    (mine / "a.safetensors").symlink_to((snapshot / "a.safetensors").resolve())
    found = probe(home, {"path": str(mine)})
    assert {file["sha256"] for file in found["present"]["files"]} == {None}


class Head(Home):
    """A head from which others copy: its sshd runs the one command that it lets a key run."""

    def open(self, directory, **more):
        assert self.lease("apply").returncode == 0
        done = self.run(
            "copy_access.py", "apply", keys=[f"ssh-ed25519 KEY dgx-spark:{STACK}:copy-key"], key="copy-key",
            directory=str(directory), sources=["127.0.0.1"], record=record("copy-access"), **more,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def open_image(self, image):
        assert self.lease("apply").returncode == 0
        done = self.run(
            "copy_access.py", "apply", keys=[f"ssh-ed25519 KEY dgx-spark:{STACK}:image-key"], key="image-key",
            image=image, sources=["127.0.0.1"], record=record("image-access"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def command(self):
        (line,) = (self.path / ".ssh/authorized_keys").read_text().splitlines()
        return re.search(r'command="((?:[^"\\]|\\.)*)"', line).group(1).replace('\\"', '"')

    def ask(self, words):
        """What `ssh head WORDS` gives with the key."""
        environment = {**os.environ, "HOME": str(self.path), "SSH_ORIGINAL_COMMAND": words}
        argv = ["sh", "-c", self.command()]
        return subprocess.run(argv, env=environment, capture_output=True, stdin=subprocess.DEVNULL, text=True)


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A head, and another Spark whose ssh leads to it."""
    head, other = Head(tmp_path / "head"), Home(tmp_path / "other")
    programs = tmp_path / "programs"
    for folder in (head.path, other.path, programs):
        folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def connect():
        ssh = programs / "ssh"
        ssh.write_text(
            f'#!/bin/sh\nwhile [ "$1" != head ]; do shift; done; shift\necho "$*" >>{tmp_path}/asked\n'
            f'SSH_ORIGINAL_COMMAND="$*" HOME={head.path} exec sh -c {shlex.quote(head.command())}\n'
        )
        ssh.chmod(0o755)

    head.connect = connect
    return head, other


def copied(pair, there="models--a--b", **options):
    head, other = pair
    head.connect()
    folder = other.path / "hub/models--a--b"
    source = {"address": "head", "user": "user", "port": 22, "host_key": "ssh-ed25519 AAAA", "own": "o", "model": there}
    return weights(other, folder / "snapshots" / COMMIT, folder, source=source, **options)


@both_layouts
def test_a_copy_is_whole_whatever_layout_the_heads_cache_has(pair, shared):
    head, other = pair
    caches.put(head.path, "a/b", COMMIT, WEIGHTS, shared=shared)
    head.open(head.path / "hub")
    done = copied(pair)
    assert "3 files verified" in done.stderr, done.stderr
    blob = other.path / "hub/models--a--b/blobs" / caches.sha256(WEIGHTS["a.safetensors"])
    assert blob.is_file()
    assert not blob.is_symlink()
    # The model's own links stay, so that a file is there once.
    assert (other.path / "hub/models--a--b/snapshots" / COMMIT / "a.safetensors").is_symlink()
    assert (other.path / "hub/models--a--b/refs/main").read_text() == COMMIT
    assert not (other.path / "hub/blobs").exists()


def test_a_copy_that_was_cut_off_or_has_another_length_is_mended(pair):
    head, other = pair
    caches.put(head.path, "a/b", COMMIT, WEIGHTS, shared=True)
    head.open(head.path / "hub")
    copied(pair)
    blob = other.path / "hub/models--a--b/blobs" / caches.sha256(WEIGHTS["a.safetensors"])
    assert blob.stat().st_mode & 0o200, "rsync has to write to it again"
    os.truncate(blob, 100)
    assert "3 files verified" in copied(pair).stderr
    assert not list(blob.parent.glob("*.incomplete"))


def test_a_file_that_is_whole_here_in_the_new_layout_is_not_sent_again(pair):
    head, other = pair
    caches.put(head.path, "a/b", COMMIT, WEIGHTS)
    there = caches.put(other.path, "a/b", COMMIT, WEIGHTS, shared=True)
    (there / "deep/b.safetensors").unlink()
    head.open(head.path / "hub")
    assert "3 files verified" in copied(pair).stderr
    blobs = other.path / "hub/models--a--b/blobs"
    assert (blobs / caches.sha256(WEIGHTS["a.safetensors"])).is_symlink()


def test_a_directory_with_links_to_another_disk_is_copied_with_what_they_lead_to(pair, tmp_path):
    head, other = pair
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "w").write_bytes(WEIGHTS["a.safetensors"])
    mine = head.path / "mine"
    mine.mkdir()
    (mine / "config.json").write_bytes(b"{}")
    (mine / "a.safetensors").symlink_to(disk / "w")
    head.open(mine)
    head.connect()
    contents = {name: WEIGHTS[name] for name in ("config.json", "a.safetensors")}
    here = other.path / "mine"
    source = {"address": "head", "user": "user", "port": 22, "host_key": "ssh-ed25519 AAAA", "own": "o", "model": "."}
    done = weights(other, here, here, contents, source=source)
    assert "2 files verified" in done.stderr, done.stderr
    assert not (here / "a.safetensors").is_symlink()


@pytest.mark.parametrize(
    "asked",
    [
        "cat /etc/hostname",
        "",
        "sh -c id",
        "rsync --server -lDtpre.iLsfxCIvu . models--a--b/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . /etc/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . ../",
        "rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/../../",
        "rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/ /etc/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . --log-file=x",
        "rsync --server --sender -slDtpre.iLsfxCIvu .",
        "rsync --server --sender -lDtpre.iLsfxCIvu --remove-source-files . models--a--b/",
        "rsync --server --sender -lDtpre.iLsfxCIvu --log-file=x . models--a--b/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/;id",
        'rsync "',
        "rsync --server --sender -lDtpre.iLsfxCIvu . $(cat /etc/hostname)",
        "rsync --server --sender -lDtpre.iLsfxCIvu . `id`",
        "rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/\nid",
        "rsync --server --sender -lDtpre.iLsfxCIvu . models--*/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . ~/.ssh/",
        "rsync --server --sender -lDtpre.iLsfxCIvu . --files-from=/etc/passwd",
        "rsync --server --sender -lDtpre.iLsfxCIvu --files-from=/etc/passwd . models--a--b/",
        "rsync --server --sender -lDtpre.iLsfxCIvu -e id . models--a--b/",
        "rsync --server --sender -lDtpre.iLsfxCIvu",
        "rsync --server --daemon .",
        "/usr/bin/rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/",
        "env rsync --server --sender -lDtpre.iLsfxCIvu . models--a--b/",
        "scp -f models--a--b/refs/main",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "docker save sha256:1",
        "send models--a--b 0 0 ../../.ssh/authorized_keys",
        "send models--a--b 0 0 /etc/passwd",
        "send models--a--b 0 0 snapshots/../../../secret",
        "send .. 0 0 secret",
        "send /etc 0 0 passwd",
        "send models--a--b -1 0 refs/main",
        "send models--a--b 0 x refs/main",
        "send models--a--b 0 0",
        "send models--a--b 0 0 ''",
        "send models--a--b 0 0 refs/main refs/main",
    ],
)
def test_the_key_copies_from_its_directory_and_does_nothing_else(pair, asked):
    head, _ = pair
    caches.put(head.path, "a/b", COMMIT, WEIGHTS)
    (head.path / "secret").write_text("secret")
    head.open(head.path / "hub")
    done = head.ask(asked)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "this key copies models" in done.stderr


def test_the_key_sends_a_file_of_its_directory_from_where_it_is_asked_to_and_no_shell_reads_its_name(pair):
    head, _ = pair
    snapshot = caches.put(head.path, "a/b", COMMIT, WEIGHTS, shared=True)
    (snapshot / "odd $(id) 'name';").write_text("odd")
    head.open(head.path / "hub")
    assert head.ask(f"send models--a--b 4 16384 snapshots/{COMMIT}/a.safetensors").stdout == "aaaa" * 4095
    odd = shlex.quote(f"snapshots/{COMMIT}/odd $(id) 'name';")
    assert head.ask(f"send models--a--b 0 0 {odd}").stdout == "odd"


@pytest.mark.parametrize(
    "asked", ["", "id", "docker save another", "docker run --privileged sha256:1", "$(id)", "; id"]
)
def test_the_key_for_an_image_saves_that_image_whatever_is_asked(pair, tmp_path, asked):
    head, _ = pair
    docker = tmp_path / "programs/docker"
    docker.write_text('#!/bin/sh\necho "$@"\n')
    docker.chmod(0o755)
    head.open_image("sha256:1")
    assert head.ask(asked).stdout == "save sha256:1\n"


def test_a_key_is_for_its_peer_alone_and_for_nothing_beside_its_command(pair):
    """What sshd itself holds to. Source: sshd(8), restrict: no forwarding, no terminal, no user's rc."""
    head, _ = pair
    for open_ in (lambda: head.open(head.path / "hub"), lambda: head.open_image("sha256:1")):
        open_()
        (line,) = (head.path / ".ssh/authorized_keys").read_text().splitlines()[-1:]
        assert line.startswith('restrict,from="127.0.0.1",command="')
        assert not any(word in line for word in ("port-forwarding", "agent-forwarding", "pty", "permitopen", "user-rc"))


def test_what_lets_the_others_copy_is_missed_when_it_is_changed_and_gone_when_it_is_removed(pair):
    head, _ = pair
    (head.path / "hub").mkdir()
    head.open(head.path / "hub")
    assert probe(head, {})["records"]["scripts"]["intact"]
    server = next(head.path.glob(".local/state/dgx-spark/*/scripts/copy_server.py"))
    server.write_text("import os; os.system('id')\n")
    assert not probe(head, {})["records"]["scripts"]["intact"]
    given = {"keys": [], "key": "copy-key", "directory": "", "sources": []}
    head.run("copy_access.py", "remove", **given, record=record("copy-access"))
    assert (head.path / ".ssh/authorized_keys").read_text() == ""


@both_layouts
def test_a_damaged_file_goes_with_all_that_would_be_taken_for_it(home, shared):
    snapshot = caches.put(home.path, "a/b", COMMIT, WEIGHTS, shared=shared)
    path = snapshot / "a.safetensors"
    payload = path.resolve()
    blob = snapshot.parent.parent / "blobs" / caches.sha256(WEIGHTS["a.safetensors"])
    payload.chmod(0o644)
    payload.write_bytes(b"x" * len(WEIGHTS["a.safetensors"]))
    # The download itself needs Docker, which is not here; what is damaged has gone by then.
    means = {"endpoint": "http://nobody.invalid", "image": "i", "cache": str(home.path), "token": ""}
    weights(home, snapshot, snapshot.parent.parent, **means)
    assert not os.path.lexists(path)
    assert not os.path.lexists(blob)
    assert not payload.exists()
    assert (snapshot / "deep/b.safetensors").exists()


def prune(home, *remove):
    done = home.run("prune.py", "apply", cache=str(home.path), remove=remove, volumes=[])
    assert done.returncode == 0, done.stderr
    return {(row["repo"], row["commit"]): row["bytes"] for row in json.loads(done.stdout)["revisions"]}


def test_a_file_that_two_models_share_goes_with_the_last_of_them(home):
    content = {"w.safetensors": b"w" * 9000}
    first = caches.put(home.path, "a/b", "one", content, shared=True)
    second = caches.put(home.path, "a/tuned", "two", {**content, "x.safetensors": b"x" * 5000}, shared=True)
    payload = (first / "w.safetensors").resolve()
    # What only one of them has is what its removal would free.
    assert prune(home) == {("a/b", "one"): 0, ("a/tuned", "two"): 5000}
    assert prune(home, ["a/b", "one"]) == {("a/tuned", "two"): 14000}
    assert (second / "w.safetensors").read_bytes() == content["w.safetensors"]
    assert prune(home, ["a/tuned", "two"]) == {}
    assert not payload.exists()
    assert not payload.with_name(f"{payload.name}.refs").exists()


def test_a_file_that_two_revisions_share_stays_for_the_other(home):
    content = {"w.safetensors": b"w" * 9000}
    caches.put(home.path, "a/b", "one", content, ref="old", shared=True)
    newer = home.path / "hub/models--a--b/snapshots/two"
    shutil.copytree(home.path / "hub/models--a--b/snapshots/one", newer, symlinks=True)
    assert prune(home, ["a/b", "one"]) == {("a/b", "two"): 9000}
    assert (newer / "w.safetensors").read_bytes() == content["w.safetensors"]


def test_a_store_that_nobody_marked_is_left_alone(home):
    snapshot = caches.put(home.path, "a/b", "one", {"w.safetensors": b"w" * 9000}, shared=True)
    payload = (snapshot / "w.safetensors").resolve()
    (home.path / "hub/blobs" / caches.SHARED).unlink()
    prune(home, ["a/b", "one"])
    assert payload.exists()
    assert not (home.path / "hub/models--a--b").exists()


def test_weights_that_need_not_be_kept_leave_the_store_too(home):
    snapshot = caches.put(home.path, "a/b", COMMIT, WEIGHTS, shared=True)
    home.lease("apply", cache=str(home.path))
    folder = snapshot.parent.parent
    about = {"repo": "a/b", "commit": COMMIT, "revision": None, "files": [], "encodings": []}
    mine = {**about, "folder": str(folder), "path": str(snapshot), "record": record("weights")}
    home.run("weights.py", "apply", **mine, keep=False)
    home.run("weights.py", "remove", **mine, keep=False)
    home.lease("remove", cache=str(home.path))
    assert not folder.exists()
    left = [path for path in (home.path / "hub/blobs").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == [Path(home.path / "hub/blobs" / caches.SHARED)]
