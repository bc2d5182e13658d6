"""Weights and images go from Spark to Spark: each passes on what it is still receiving, whole and verified at each."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.remote import parcel
from components.scripts.shared.images import image_parts
from tests.unit import caches
from tests.unit.build import facts, plan, settings
from tests.unit.home import STACK, Home, record

MEBIBYTE = 1 << 20
COMMIT = "c" * 40
LARGE = b"".join(bytes([number]) * 4096 for number in range(256)) * 4
CONTENT = {"config.json": b"{}", "model.safetensors": LARGE}
REST = 3 * MEBIBYTE
"""Bytes of the large file that are held back at a gate."""


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Spark(Home):
    """A Spark in a chain; `before`: the one that its ssh leads to."""

    def __init__(self, path: Path, before: Spark | None = None) -> None:
        super().__init__(path)
        (path / "bin").mkdir(parents=True)
        self.before, self.folder = before, path / "hub/models--a--b"
        assert self.lease("apply").returncode == 0
        self.connect()

    def connect(self, filter_: str = "cat") -> None:
        """ssh runs what the key may there; `filter_`: a program that what it sends goes through."""
        if self.before is None:
            return
        self.before.let_in()
        there = shlex.quote(self.before.command())
        self.program(
            "ssh",
            f'while [ "$1" != other ]; do shift; done; shift\nexport SSH_ORIGINAL_COMMAND="$*"\n'
            f'echo "$*" >>{self.path}/asked\nexport HOME={self.before.path} PATH="{self.before.path}/bin:$PATH"\n'
            f'case "$*" in "send models--a--b 0 {len(LARGE)} "*|save) ;; *) exec sh -c {there} ;; esac\n'
            f"set -o pipefail; sh -c {there} | {filter_}\n",
        )

    def program(self, name: str, text: str) -> None:
        file = self.path / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)

    def let_in(self) -> None:
        (self.path / "hub").mkdir(exist_ok=True)
        given = {"keys": [f"ssh-ed25519 KEY dgx-spark:{STACK}:copy-key"], "key": "copy-key", "sources": ["10.0.0.2"]}
        done = self.run("copy_access.py", "apply", **given, directory=f"{self.path}/hub", record=record("copy-access"))
        assert done.returncode == 0, done.stderr

    def command(self) -> str:
        (line,) = (self.path / ".ssh/authorized_keys").read_text().splitlines()
        return line.partition('command="')[2].partition('" ssh-ed25519')[0].replace('\\"', '"')

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PATH": f"{self.path}/bin:{os.environ['PATH']}"}

    def begin(self, script: str, **given: object) -> subprocess.Popen[str]:
        command = parcel.command(script, "apply", limit=100).replace("timeout 100 python3", sys.executable, 1)
        run = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert run.stdin
        run.stdin.write(self.text(script, given))
        run.stdin.close()
        run.stdin = None
        return run

    def copy(self) -> subprocess.Popen[str]:
        files = [
            {"path": path, "size": len(content), "sha256": caches.sha256(content) if content is LARGE else None}
            for path, content in CONTENT.items()
        ]
        return self.begin(
            "weights.py", repo="a/b", commit=COMMIT, revision=None, files=files, encodings=[], keep=True,
            folder=str(self.folder), path=f"{self.folder}/snapshots/{COMMIT}", record=record("weights"),
            source={"address": "other", "user": "u", "port": 22, "host_key": "k", "own": "o", "model": "models--a--b"},
        )  # fmt: skip

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / caches.sha256(LARGE)

    @property
    def part(self) -> Path:
        return self.blob.with_name(f"{self.blob.name}.copy.incomplete")

    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def asked(self) -> list[str]:
        """Offsets that the large file was asked for from."""
        words = [line.split() for line in (self.path / "asked").read_text().splitlines()]
        return [line[2] for line in words if line[0] == "send" and line[2] != line[3] and line[3] == str(len(LARGE))]


@pytest.fixture
def chain(tmp_path):
    """Three Sparks; the first has the model."""
    head = Spark(tmp_path / "head")
    caches.put(head.path, "a/b", COMMIT, CONTENT)
    second = Spark(tmp_path / "second", head)
    return head, second, Spark(tmp_path / "third", second)


def ended(run):
    said = run.communicate(timeout=60)
    return run.returncode, said[1]


class Gate:
    """What goes through it stops before its last `REST` bytes until it is opened."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.filter = f"(head -c {len(LARGE) - REST}; cat {path}; cat)"

    def open(self) -> None:
        self._path.write_text("")


def test_a_spark_passes_on_what_it_is_still_receiving(chain, tmp_path):
    _, second, third = chain
    gate = Gate(tmp_path / "gate")
    second.connect(gate.filter)
    # The last may begin before the one that it copies from.
    last = third.copy()
    wait_for((third.path / "asked").exists, "the last Spark asks")
    middle = second.copy()
    wait_for(lambda: third.received() == len(LARGE) - REST, "what the middle one has so far is at the last one")
    assert not second.blob.exists()
    assert not third.blob.exists()
    gate.open()
    for run in (middle, last):
        code, said = ended(run)
        assert code == 0, said
        assert "2 files verified" in said
    for spark in (second, third):
        assert spark.blob.read_bytes() == LARGE
        assert (spark.folder / f"snapshots/{COMMIT}/model.safetensors").is_symlink()
        assert not spark.part.exists()


HOW_FAR = r"copying 25 %, \d.* left, [\d.]+ [kMG]B/s, 1\.0 MB of 4\.2 MB: "
"""Of LARGE behind a gate."""


def says_how_far_it_is(spark, begin, what, tmp_path):
    """A copy to this Spark says so on standard error while it is held up, and then ends well."""
    gate = Gate(tmp_path / "gate")
    spark.connect(gate.filter)
    run = begin()
    # It is ended where it says nothing.
    patience = threading.Timer(60, run.kill)
    patience.start()
    try:
        assert any(re.fullmatch(HOW_FAR + what, line.rstrip("\n")) for line in run.stderr)
    finally:
        patience.cancel()
    gate.open()
    assert ended(run)[0] == 0


def test_a_copy_of_weights_says_how_far_it_is_while_it_lasts(chain, tmp_path, often):
    _, second, _ = chain
    says_how_far_it_is(second, second.copy, "a/b", tmp_path)


@pytest.mark.long
def test_a_model_of_one_large_file_is_passed_on_while_it_comes_too(chain, tmp_path, monkeypatch):
    _, second, third = chain
    monkeypatch.delitem(CONTENT, "config.json")
    gate = Gate(tmp_path / "gate")
    second.connect(gate.filter)
    runs = second.copy(), third.copy()
    wait_for(lambda: third.received() == len(LARGE) - REST, "what the middle one has so far is at the last one")
    gate.open()
    assert [ended(run)[0] for run in runs] == [0, 0]


def test_a_chain_that_was_interrupted_goes_on_where_each_spark_was(chain, tmp_path):
    _, second, third = chain
    gate = Gate(tmp_path / "gate")
    second.connect(gate.filter)
    runs = second.copy(), third.copy()
    wait_for(lambda: third.received() == len(LARGE) - REST, "some of it is at the last one")
    for run in runs:
        run.kill()
        run.communicate()
    gate.open()
    second.connect()
    for run in (second.copy(), third.copy()):
        assert ended(run)[0] == 0
    assert second.asked() == third.asked() == ["0", str(len(LARGE) - REST)]
    assert third.blob.read_bytes() == LARGE


def test_a_part_that_is_not_a_beginning_of_the_file_comes_again_and_is_passed_on_right(chain):
    _, second, third = chain
    for spark in (second, third):
        spark.part.parent.mkdir(parents=True)
        spark.part.write_bytes(b"x" * MEBIBYTE)
    for run in (second.copy(), third.copy()):
        code, said = ended(run)
        assert code == 0, said
    assert second.asked() == [str(MEBIBYTE), "0"]
    assert second.blob.read_bytes() == third.blob.read_bytes() == LARGE


def test_a_spark_does_not_wait_for_one_that_gave_up(chain, tmp_path):
    _, second, third = chain
    gate = Gate(tmp_path / "gate")
    second.connect(gate.filter.replace("; cat)", "; exit 3)"))
    middle, last = second.copy(), third.copy()
    wait_for(lambda: third.received() == MEBIBYTE, "some of it is at the last one")
    gate.open()
    assert ended(middle)[0] == 1
    code, said = ended(last)
    assert code == 1
    assert "model.safetensors" in said or caches.sha256(LARGE) in said
    assert "Traceback" not in said
    # What has come is kept for the next time.
    assert second.received() == third.received() == MEBIBYTE


def test_a_file_that_is_damaged_at_the_spark_before_is_refused_and_keeps_no_name(chain):
    head, second, _ = chain
    blob = head.folder / "blobs" / caches.sha256(LARGE)
    blob.write_bytes(LARGE[:-1] + b"!")
    code, said = ended(second.copy())
    assert code == 1
    assert "arrived damaged; run `pulumi up` again" in said
    assert not second.blob.exists()
    assert not second.part.exists()


@pytest.mark.long
def test_where_nobody_is_getting_the_model_the_next_spark_is_told_so(chain):
    _, second, third = chain
    laid = next(second.path.glob(".local/state/dgx-spark/*/scripts/shared/upstream.py"))
    laid.write_text(laid.read_text().replace("GRACE = 60", "GRACE = 0"))
    code, said = ended(third.copy())
    assert code == 1
    assert f"{second.folder}/snapshots/{COMMIT}/config.json is not here, and nobody copies it to here" in said


@pytest.mark.long
def test_only_the_commit_that_is_wanted_is_copied_and_no_name_of_another_one(chain):
    head, second, _ = chain
    other = head.folder / "snapshots/other"
    other.mkdir()
    (other / "model.safetensors").symlink_to("../../blobs/other")
    (head.folder / "blobs/other").write_bytes(LARGE)
    (head.folder / "refs/next").write_text("other")
    assert ended(second.copy())[0] == 0
    assert os.listdir(second.folder / "snapshots") == [COMMIT]
    assert os.listdir(second.folder / "refs") == ["main"]
    assert not (second.folder / "blobs/other").exists()


DOCKER = """#!{python}
import hashlib, json, sys
from pathlib import Path
image, words = Path("{home}/image"), sys.argv[1:]
if words[0] == "load":
    image.write_bytes(sys.stdin.buffer.read())
    print("Loaded image ID: sha256:1")
elif words[0] == "tag":
    pass
elif words[0] == "info":
    print("[[Backing Filesystem extfs]]")
elif words[1] == "ls":
    print("sha256:1" if image.exists() else "")
elif not image.exists():
    sys.exit("Error: No such image")
elif words[0] == "save":
    with open("{home}/saved", "a") as log:
        log.write("saved\\n")
    sys.stdout.buffer.write(image.read_bytes())
elif words[2] == "--format={{{{.Id}}}}":
    print("sha256:1")
elif words[2] == "--format={{{{.Size}}}}":
    print(image.stat().st_size)
else:
    layer = hashlib.sha256(image.read_bytes()).hexdigest()
    print(json.dumps([{{"RootFS": {{"Layers": [layer]}}, "Config": {{}}}}]))
"""
"""Docker's command line over one image."""


class Imaged(Spark):
    """One of a chain along which an image is copied."""

    def __init__(self, path: Path, before: Spark | None = None) -> None:
        super().__init__(path, before)
        program = path / "bin/docker"
        program.write_text(DOCKER.format(python=sys.executable, home=path))
        program.chmod(0o755)

    def let_in(self) -> None:
        given = {"keys": [f"ssh-ed25519 KEY dgx-spark:{STACK}:image-key"], "key": "image-key", "sources": ["10.0.0.2"]}
        done = self.run("copy_access.py", "apply", **given, image="sha256:1", record=record("image-access"))
        assert done.returncode == 0, done.stderr

    def load(self, **more: object) -> subprocess.Popen[str]:
        parts = image_parts({"RootFS": {"Layers": [caches.sha256(LARGE)]}, "Config": {}})
        content = hashlib.sha256("\n".join([*parts["layers"], parts["config"]]).encode()).hexdigest()
        return self.begin(
            "image_copy.py", image="sha256:1", content=content, layers=parts["layers"], name="engine:1",
            record=record("image-copy"),
            source={"address": "other", "user": "u", "port": 22, "host_key": "k", "own": "o"}, **more,
        )  # fmt: skip

    @property
    def image(self) -> bytes:
        return (self.path / "image").read_bytes() if (self.path / "image").exists() else b""

    @property
    def saved(self) -> int:
        return (self.path / "saved").read_text().count("saved") if (self.path / "saved").exists() else 0


@pytest.fixture
def images(tmp_path):
    """Three Sparks; the first has the image."""
    head = Imaged(tmp_path / "head")
    (head.path / "image").write_bytes(LARGE)
    second = Imaged(tmp_path / "second", head)
    return head, second, Imaged(tmp_path / "third", second)


def test_an_image_is_passed_on_while_it_comes_and_saved_once(images):
    head, second, third = images
    last, middle = third.load(), second.load(passed_on=True)
    for run in (middle, last):
        code, said = ended(run)
        assert code == 0, said
    assert head.image == second.image == third.image
    assert (head.saved, second.saved) == (1, 0)


def test_a_copy_of_an_image_says_how_far_it_is_while_it_lasts(images, tmp_path, often):
    _, second, _ = images
    says_how_far_it_is(second, second.load, "engine:1", tmp_path)
    assert second.image == LARGE


@pytest.mark.long
def test_a_spark_that_comes_late_gets_the_image_from_docker(images):
    _, second, third = images
    assert ended(second.load())[0] == 0
    assert ended(third.load())[0] == 0
    assert second.saved == 1
    assert third.image == LARGE


def test_each_spark_looks_at_the_image_itself_whatever_the_one_before_says(images):
    _, second, third = images
    (second.path / "image").write_bytes(b"another")
    code, said = ended(third.load())
    assert code == 1
    assert "another image than sha256:1 arrived" in said


@pytest.mark.long
def test_an_image_of_which_the_end_is_missing_ends_the_copy_on_every_spark(images):
    _, second, third = images
    second.connect("(head -c 100; exit 3)")
    runs = third.load(), second.load(passed_on=True)
    for run in runs:
        code, said = ended(run)
        assert code == 1, said
        assert "Traceback" not in said
    assert not list(second.path.glob(".local/state/dgx-spark/*/image-copy.json"))


LAYERED = """#!{python}
import io, json, sys, tarfile
from pathlib import Path
image, below, words = Path("{home}/image"), Path("{home}/below"), sys.argv[1:]
layers = ["sha256:a", "sha256:b", "sha256:a2", "sha256:b"]

def about(layers):
    return {{"Id": "sha256:1", "RootFS": {{"Layers": layers}}, "Config": {{}}}}

if words[0] == "load":
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        image.write_text(json.dumps({{member.name: tar.extractfile(member).read().decode() for member in tar}}))
    print("Loaded image ID: sha256:1")
elif words[0] == "save":
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for name in [*(f"blobs/sha256/{{layer[7:]}}" for layer in layers[:3]), "manifest.json"]:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
elif words[0] == "info":
    print((Path("{home}") / "driver").read_text())
elif words[1] == "ls":
    print("sha256:old" if below.exists() else "")
elif words[0] == "image" and words[-1] == "sha256:old":
    print(json.dumps([about(json.loads(below.read_text()))]))
elif words[0] == "image":
    if not image.exists():
        sys.exit("Error: No such image")
    wanted = {{"--format={{{{.Id}}}}": "sha256:1", "--format={{{{.Size}}}}": 60}}
    print(wanted.get(words[2]) or json.dumps([about(layers)]))
"""
"""Docker's command line over one image of four layers, whose archive is as Docker makes it since its version 25: a
layer that is there twice is in it once. `below` has the layers of another image that is here."""


class Layered(Imaged):
    LAYERS = ("sha256:a", "sha256:b", "sha256:a2", "sha256:b")
    ARCHIVE = ("blobs/sha256/a", "blobs/sha256/a2", "blobs/sha256/b", "manifest.json")

    def __init__(
        self, path: Path, before: Spark | None = None, *, below: tuple[str, ...] = (), driver: str = "extfs"
    ) -> None:
        super().__init__(path, before)
        (path / "driver").write_text(driver)
        if below:
            (path / "below").write_text(json.dumps(below))
        (path / "bin/docker").write_text(LAYERED.format(python=sys.executable, home=path))

    def load(self, **more: object) -> subprocess.Popen[str]:
        parts = image_parts({"RootFS": {"Layers": self.LAYERS}, "Config": {}})
        content = hashlib.sha256("\n".join([*parts["layers"], parts["config"]]).encode()).hexdigest()
        return self.begin(
            "image_copy.py", image="sha256:1", content=content, layers=self.LAYERS, name="engine:1",
            record=record("image-copy"),
            source={"address": "other", "user": "u", "port": 22, "host_key": "k", "own": "o"}, **more,
        )  # fmt: skip

    @property
    def came(self) -> list[str]:
        """Members of the archive that came, whole."""
        members = json.loads((self.path / "image").read_text())
        assert all(name == content for name, content in members.items())
        return sorted(members)


LOWEST, TWO = ("sha256:a",), ("sha256:a", "sha256:b", "sha256:other")


def layered(path, seconds, thirds, driver="extfs"):
    """A head with the image, and two that have others."""
    head = Layered(path / "head")
    (head.path / "image").write_text("{}")
    second = Layered(path / "second", head, below=seconds)
    return second, Layered(path / "third", second, below=thirds, driver=driver)


@pytest.mark.parametrize(
    ("seconds", "thirds", "come"),
    [
        pytest.param((), (), Layered.ARCHIVE, marks=pytest.mark.long),
        (TWO, LOWEST, Layered.ARCHIVE[1:]),
        # The second layer is the fourth as well.
        (TWO, TWO, Layered.ARCHIVE[1:]),
        pytest.param(TWO, ("sha256:b",), Layered.ARCHIVE, marks=pytest.mark.long),
        pytest.param(Layered.LAYERS[:3], Layered.LAYERS, ("blobs/sha256/b", "manifest.json"), marks=pytest.mark.long),
    ],
)
def test_layers_that_all_who_get_an_image_have_are_not_sent(tmp_path, seconds, thirds, come):
    second, third = layered(tmp_path, seconds, thirds)
    last, middle = third.load(), second.load(passed_on=True)
    for run in (middle, last):
        code, said = ended(run)
        assert code == 0, said
    assert second.came == third.came == sorted(come)


@pytest.mark.long
def test_where_docker_reads_every_layer_that_it_loads_all_are_sent(tmp_path):
    second, third = layered(tmp_path, TWO, TWO, driver="[[driver-type io.containerd.snapshotter.v1]]")
    last, middle = third.load(), second.load(passed_on=True)
    for run in (middle, last):
        code, said = ended(run)
        assert code == 0, said
    assert second.came == third.came == sorted(Layered.ARCHIVE)


FOUR = {f"spark-{number}": facts(number) for number in (1, 2, 3, 4)}


def test_each_of_four_copies_from_the_one_before_and_every_key_is_for_one_peer():
    made = plan(settings(4, engine="sglang", image={"source": "copy"}, serving={"tensorParallel": 4}), FOUR)
    address = {name: made.links[name].address for name in made.nodes}
    for steps, access in ((made.weights[1:], made.authorizations), (made.image.copies, made.image.access)):
        for before, node, step, let_in in zip(made.nodes, made.nodes[1:], steps, access, strict=False):
            source = step.inputs["source"]
            assert (step.node, source["address"], source["own"]) == (node, address[before], address[node])
            assert (let_in.node, let_in.inputs["sources"]) == (before, [address[node]])
    # The last has nobody to wait for.
    assert [step.inputs.get("passed_on") for step in made.image.copies] == [True, True, None]
