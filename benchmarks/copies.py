"""Weights and an image to the other Sparks over links of one speed: a chain against a star and one raw stream. sparkrun
0.2.40 copies as these stars do: rsync, and docker save into docker load, from the head to each.

Of `./spark measure`; for simulated Sparks alone: it lays keys and files there and leaves them. The Sparks share this
machine's processors, so `MBIT` is small enough for the links to be the limit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.figures import Aim, Figure
from components.remote import parcel
from simulator import network, sparks
from simulator.layout import TWINS, USER, Spark

STACK = "organization/dgx-spark/copies"
HUB = f"/home/{USER}/.cache/huggingface/hub"
FILES = 6
MBIT = 60
"""Out of each Spark."""

SIZE = 160 << 20
"""Bytes of weights, and of an image."""

QUICK = 32 << 20
"""The same where time is short: logins then count for a tenth."""

VERIFIED = 1 << 30
"""Bytes whose checksums are made: so many that a login counts for little."""

OWN = 4 << 20
"""Bytes that a child of that image has of its own."""

REPEATS = 3
"""At most: each takes minutes."""
COMMIT = "c" * 40
SSH = (
    "ssh -F none -i .ssh/any -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR -o Ciphers=aes128-gcm@openssh.com"
)
"""To the head, with a key that may do everything."""


def step(spark: Spark, script: str, **given: Any) -> str:
    inputs = {
        **given,
        "record": {"stack": STACK, "kind": given.pop("kind"), "spec": "", "generation": str(time.time())},
    }
    command = parcel.command_there(STACK, script, "apply", limit=3600)
    return sparks.on(spark, command, stdin=json.dumps(inputs), timeout=3600)


def lay(spark: Spark) -> None:
    record = {"stack": STACK, "kind": "node", "spec": "", "generation": "1"}
    inputs = {
        "stack": STACK, "node": spark.name, "cache": HUB.removesuffix("/hub"), "takeover": False, "record": record,
        "laid": {**record, "kind": "scripts"},
    }  # fmt: skip
    text = json.dumps(parcel.pack_all(inputs))
    sparks.on(spark, parcel.command("node.py", "apply", limit=60), stdin=text)


def source(before: Spark, spark: Spark) -> dict[str, Any]:
    return {
        "address": before.fabric_address(0), "user": USER, "port": 22, "host_key": sparks.host_key(before),
        "own": spark.fabric_address(0), "model": "models--a--b",
    }  # fmt: skip


def let_in(before: Spark, spark: Spark, kind: str, **what: str) -> None:
    key = step(spark, "copy_key.py", kind=kind).strip()
    given = {"keys": [key], "key": kind, "sources": [spark.fabric_address(0)], **what}
    step(before, "copy_access.py", kind=kind.replace("key", "access"), **given)


def at_once(do: Callable[[Spark], object], on: Sequence[Spark]) -> float:
    """Seconds until all are done."""
    begun = time.monotonic()
    with ThreadPoolExecutor(len(on)) as pool:
        list(pool.map(do, on))
    return time.monotonic() - begun


def let_in_whole(head: Spark, spark: Spark) -> None:
    sparks.on(spark, "mkdir -p .ssh && ssh-keygen -q -t ed25519 -N '' -f .ssh/any")
    sparks.on(head, "cat >> .ssh/authorized_keys", stdin=sparks.on(spark, "cat .ssh/any.pub"))


class Weights:
    def __init__(self, every: Sequence[Spark], size: int) -> None:
        self.head, *self.others = every
        self.before = {spark.name: before for before, spark in pairwise(every)}
        folder = f"{HUB}/models--a--b"
        make = (
            f"mkdir -p {folder}/blobs {folder}/snapshots/{COMMIT} && cd {folder} && for n in $(seq {FILES}); do "
            f"head -c {size // FILES} /dev/urandom > blobs/new && d=$(sha256sum blobs/new | cut -d' ' -f1) && "
            f"mv blobs/new blobs/$d && ln -sf ../../blobs/$d snapshots/{COMMIT}/$n.safetensors && echo $n $d; done"
        )
        found = [line.split() for line in sparks.on(self.head, make).splitlines()]
        self.size = size // FILES
        """Bytes of each file."""

        self.files = [{"path": f"{n}.safetensors", "size": self.size, "sha256": d} for n, d in found]
        self.folder = folder

    def clear(self) -> None:
        for spark in self.others:
            sparks.on(spark, f"rm -rf {self.folder} ~/mine; rm -f ~/.local/state/dgx-spark/*copies/weights.json")

    def inputs(self, **more: Any) -> dict[str, Any]:
        about = {"repo": "a/b", "revision": None, "commit": COMMIT, "files": self.files, "encodings": [], "keep": True}
        return {**about, "folder": self.folder, "path": f"{self.folder}/snapshots/{COMMIT}", **more, "kind": "weights"}

    def chain(self, spark: Spark) -> None:
        step(spark, "weights.py", **self.inputs(source=source(self.before[spark.name], spark)))

    def raw(self, spark: Spark) -> None:
        get = f"{SSH} {USER}@{self.head.fabric_address(0)} 'cat {self.folder}/blobs/*' > mine"
        sparks.on(spark, get, timeout=3600)

    def halve(self, spark: Spark) -> None:
        """Leave the first half of each file, as a copy does that was interrupted."""
        half = f"truncate -s {self.size // 2} {self.folder}/blobs/*"
        sparks.on(spark, f"{half}; rm -f ~/.local/state/dgx-spark/*copies/weights.json")

    def rsync(self, spark: Spark) -> None:
        """What a star was: the whole folder from the head."""
        remote = f"{USER}@{self.head.fabric_address(0)}:{self.folder}/"
        sparks.on(
            spark, f"mkdir -p {self.folder} && rsync -a --inplace -e '{SSH}' {remote} {self.folder}/", timeout=3600
        )


class Image:
    NAME = "measured:1"

    def __init__(self, every: Sequence[Spark], size: int) -> None:
        self.head, *self.others = every
        self.before = {spark.name: before for before, spark in pairwise(every)}
        make = (
            f"mkdir -p ~/layer && head -c {size} /dev/urandom > ~/layer/data && tar -C ~/layer -c . | docker import -"
        )
        self.id = sparks.on(self.head, f"{make} {self.NAME}; rm -r ~/layer").strip()
        self.about = self._about(self.id, self.NAME)

    def _about(self, image: str, name: str) -> dict[str, Any]:
        """What its copies are told of it."""
        said = json.loads(step(self.head, "image.py", image=image, name=name, add={}, kind="image"))
        return {"image": image, "content": said["content"], "layers": said["layers"], "name": name}

    def child(self) -> dict[str, Any]:
        """Of one with `OWN` bytes on top, made anew."""
        name = "measured:child"
        make = (
            f"head -c {OWN} /dev/urandom > own; id=$(docker create {self.id} any); docker cp -q own $id:/own;"
            f"docker commit $id {name}; docker rm $id >/dev/null; rm own"
        )
        return self._about(sparks.on(self.head, make).strip(), name)

    def clear(self) -> None:
        for spark in self.others:
            sparks.on(spark, f"docker rmi -f {self.id} 2>/dev/null", check=False)
            sparks.on(spark, "rm -f ~/.local/state/dgx-spark/*copies/image-copy.json")

    def chain(self, spark: Spark) -> None:
        more = {"passed_on": True} if self.last is not spark else {}
        self.copy(spark, **self.about, **more)

    def copy(self, spark: Spark, **given: Any) -> None:
        step(spark, "image_copy.py", source=source(self.before[spark.name], spark), kind="image-copy", **given)

    last: Spark

    def raw(self, spark: Spark) -> None:
        get = f"{SSH} {USER}@{self.head.fabric_address(0)} docker save {self.id} | docker load -q"
        sparks.on(spark, get, timeout=3600)


def measured(every: Sequence[Spark], repeats: int, size: int = SIZE) -> Iterator[Figure]:
    """To one Spark, and to all of them, over links of `MBIT`. `size`: bytes of either."""
    for spark in every:
        lay(spark)
    weights, image = Weights(every, size), Image(every, size)
    for before, spark in pairwise(every):
        let_in(before, spark, "copy-key", directory=HUB)
        let_in(before, spark, "image-key", image=image.id)
        let_in_whole(every[0], spark)
        network.throttle(before, MBIT)
    repeats = min(repeats, REPEATS)
    try:
        star = "rsync from the head to each (sparkrun's way)"
        yield from compared("weights", weights, star, weights.rsync, every[1:], repeats)
        yield resumed(weights, every[0], every[1])
        star = "docker save | docker load from the head to each (sparkrun's way)"
        yield from compared("image", image, star, image.raw, every[1:], repeats)
        yield children(image, every[0], every[1], repeats)
    finally:
        for before, _ in pairwise(every):
            network.throttle(before, None)
    yield verified(every[:1], repeats)


def compared(
    what: str, thing: Weights | Image, star: str, from_head: Callable[[Spark], object], others: Sequence[Spark],
    repeats: int,
) -> Iterator[Figure]:  # fmt: skip
    def took(do: Callable[[Spark], object], count: int, times: int = repeats) -> tuple[float, ...]:
        found = []
        for _ in range(times):
            thing.clear()
            if isinstance(thing, Image):
                thing.last = others[count - 1]
            found.append(at_once(do, others[:count]))
        return tuple(found)

    one, every = took(thing.chain, 1), took(thing.chain, len(others))
    yield Figure("copy", f"{what} to one", one, "one raw stream", took(thing.raw, 1), Aim("at least times", 0.9))
    # Of an image the raw stream is what people do.
    if from_head != thing.raw:
        yield Figure("copy", f"{what} to one, again", one, "plain rsync", took(from_head, 1, 1), Aim("times", 1.1))
    yield Figure("copy", f"{what} to {len(others)}", every, "to one", one, Aim("times", 1.3))
    yield Figure(
        "copy", f"{what} to {len(others)}, again", every, star, took(from_head, len(others), 1), Aim("times", 1.0)
    )


def resumed(weights: Weights, head: Spark, spark: Spark) -> Figure:
    """MB that left the head for a Spark that has the first half of each file."""
    weights.clear()
    weights.chain(spark)
    weights.halve(spark)
    before = sent(counted(head))
    weights.chain(spark)
    went = sent(counted(head)) - before
    missing = FILES * (weights.size - weights.size // 2) / 1e6
    return Figure("copy", "weights resumed: sent", (went,), "missing", (missing,), Aim("times", 1.1), unit="MB")


def counted(spark: Spark) -> str:
    """What ip(8) says of its first link to the others."""
    name = TWINS[0][0].format(port=1)
    return network.ip("-s", "-j", "link", "show", "dev", name, namespace=spark.name)


def sent(link: str) -> float:
    """MB so far, with TCP's headers."""
    return float(json.loads(link)[0]["stats64"]["tx"]["bytes"]) / 1e6


def children(image: Image, head: Spark, spark: Spark, repeats: int) -> Figure:
    """Of an image that is on both; the key opens the child alone from then on."""
    image.clear()
    image.last = spark
    whole, took = at_once(image.chain, [spark]), []
    for _ in range(repeats):
        child = image.child()
        let_in(head, spark, "image-key", image=child["image"])
        took.append(at_once(partial(image.copy, **child), [spark]))
    return Figure("copy", "a child of that image to one", tuple(took), "the image", (whole,), Aim("times", 0.3))


def verified(head: Sequence[Spark], repeats: int) -> Figure:
    weights = Weights(head, VERIFIED)
    files = " ".join(f"{weights.folder}/blobs/{file['sha256']}" for file in weights.files)
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(at_once(lambda spark: sparks.on(spark, f"sha256sum {files}"), head))
        sparks.on(head[0], "rm -f ~/.local/state/dgx-spark/*copies/weights.json")
        ours.append(at_once(lambda spark: step(spark, "weights.py", **weights.inputs()), head))
    return Figure("copy", "verification of weights", tuple(ours), "sha256sum", tuple(theirs), Aim("times", 1.05))
