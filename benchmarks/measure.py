"""Everything that the program adds, against what people would do otherwise: `./spark measure`.

On simulated Sparks of this machine; report.py prints a table, keeps it with a history, and says what has become worse.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import copies, report
from benchmarks.empty import Empty
from benchmarks.figures import Aim, Figure, Run
from benchmarks.processes import Seen, cores, idle, seconds, watched
from benchmarks.watching import Client, connections, root, staying
from components.facts.hub import Model
from components.plan.engines import sglang
from components.plan.engines.common import HF_HOME
from components.plan.models import snapshot_directory
from components.settings.serving import RaySettings
from ops import look, pulumi
from ops.project import Project
from ops.stack import of
from simulator import sparks
from simulator import up as simulation
from simulator.layout import USER, Spark
from tests.e2e.conftest import Stack

REFERENCE = Path(__file__).with_name("reference.sh")
CACHE = f"/home/{USER}/.cache/huggingface"
MP: dict[str, Any] = {"serving": {"executor": "mp"}}
WITHOUT_RAY = "simulated/vllm:without-ray"
"""As NVIDIA ships vLLM: the program adds Ray to the image once, the scripts to each new container (facts.md B1)."""

RAY: dict[str, Any] = {"serving": {"executor": "ray"}, "image": {"name": WITHOUT_RAY}}
REPO = "openai/gpt-oss-120b"
"""The model of a stack that names none."""

AT_ONCE = {"load_seconds": 0.0}
"""Knob of engines that load nothing (simulator/standins/standin/knobs.py)."""

MODELS = ["gpt-oss-20b", "gpt-oss-120b"]
"""Between which is switched, from the last one."""

CONNECTIONS = Aim("value", 2)
"""SSH connections of a run to a Spark: one for all that is ours, and the docker provider's."""

COMPILES = 3.0
"""Seconds that a stand-in compiles, where it finds nothing."""

SLOWLY = {"word_seconds": 0.1}
"""Knob of an engine that takes seconds for an answer to a long request."""

NAME = "measured"
"""Of either model, for its clients."""

FORMED = re.compile(r"-ray-formed created \(([\d.]+)s\)")
"""What either Pulumi says of the step that waits for Ray."""


@dataclass(frozen=True)
class Bench:
    """The simulated Sparks, and how often each thing is done."""

    nodes: Sequence[Spark]
    quick: bool
    folder: Path

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 5

    @contextmanager
    def serving(self, name: str, count: int, **config: Any) -> Iterator[Stack]:
        """A stack that is up; gone afterwards."""
        with self.prepared(name, count, **config) as stack:
            stack.up()
            yield stack

    @contextmanager
    def prepared(self, name: str, count: int, **config: Any) -> Iterator[Stack]:
        folder = self.folder / f"{name}-{time.monotonic_ns()}"
        folder.mkdir()
        stack = Stack(folder, name, list(self.nodes[:count]), **config)
        try:
            yield stack
        finally:
            stack.destroy()

    def previewed(self, stack: Stack, roots: Sequence[int] = ()) -> Seen:
        """`roots`: of the Sparks that are looked at meanwhile."""
        with watched(stack.folder, roots) as seen:
            assert stack.is_clean()
        return seen


def startup(stack: Stack) -> float:
    """Seconds from the server's start to its first answer, as the Spark has seen them."""
    found = look.startup(of(Project(stack.folder, stack.environment), stack.name))
    assert found
    return float(found["answer"])


class Dialled:
    """SSH connections to Sparks since this was made."""

    def __init__(self, nodes: Sequence[Spark]) -> None:
        self._before = [(spark, connections(spark)) for spark in nodes]

    def most(self) -> int:
        return max(connections(spark) - before for spark, before in self._before)


@dataclass(frozen=True)
class Risen:
    """What an `up` took."""

    seconds: float
    """Until the first completion."""

    own: float
    """Seconds of them that are not the server's start."""

    forming: float | None
    """Seconds of them in which Ray's nodes came together; None: there is no Ray."""

    dialled: int
    """SSH connections to a Spark, at most."""


def risen(stack: Stack, outputs: dict[str, Any]) -> Risen:
    """`outputs`: that it will have, whose reading is nothing that an `up` takes."""
    logged_in = Dialled(stack.nodes)
    began = time.monotonic()
    said = stack.up().text
    stack.complete(outputs=outputs)
    took = time.monotonic() - began
    dialled = logged_in.most()
    return Risen(took, took - startup(stack), forming(said), dialled)


def forming(said: str) -> float | None:
    """Seconds in which Ray's nodes came together, by what an `up` said; None where it said nothing of it."""
    found = FORMED.search(said)
    return float(found[1]) if found else None


def asked(nodes: Sequence[Spark]) -> float:
    """Seconds of one bare `ssh true` to each Spark, at once."""

    def all_at_once() -> None:
        waiting = [subprocess.Popen([*sparks.ssh_argv(spark), "true"]) for spark in nodes]
        assert [one.wait() for one in waiting] == [0] * len(waiting)

    return seconds(all_at_once)


def previews(bench: Bench) -> Iterator[Figure]:
    nothing = Empty(bench.folder / "empty", pulumi.chosen().argv)
    with bench.serving("preview", 2, **MP) as stack:
        pair = bench.nodes[:2]
        roots = [root(spark) for spark in pair]
        seen, bare, logins, dialled, still = [], [], [], [], []
        stayed = sum(map(staying, pair))
        for _ in range(bench.repeats):
            logged_in = Dialled(pair)
            seen.append(bench.previewed(stack, roots))
            dialled.append(logged_in.most())
            still.append(max(idle(roots, seen[-1].seconds)))
            bare.append(seconds(nothing.preview))
            logins.append(asked(pair))
        # What was still ending at first is gone.
        stays = max(0, sum(map(staying, pair)) - stayed)
    ours = tuple(one.seconds for one in seen)
    name = "preview without changes, 2 Sparks"
    yield Figure("preview", name, ours, "an empty program", tuple(bare), Aim("more", 1.3))
    yield Figure("preview", f"{name}: beside it", ours, "one `ssh true` to each Spark", tuple(logins))
    yield Figure("preview", "its connections to a Spark, at most", tuple(dialled), aim=CONNECTIONS, unit="")
    yield Figure("preview", "its program's memory", tuple(o.memory for o in seen), aim=Aim("value", 120), unit="MB")
    yield Figure("preview", "memory of program, engine and ssh", tuple(one.whole for one in seen), unit="MB")
    yield Figure("preview", "its processors' time", tuple(one.cpu for one in seen))
    there = tuple(max(one.cpu_there) for one in seen)
    yield Figure("preview", "a Spark's processors' time, at most", there, "as long without a preview", tuple(still))
    memory = tuple(max(one.memory_there) for one in seen)
    yield Figure("preview", "memory that it takes on a Spark, at most", memory, unit="MB")
    yield Figure("preview", "processes that stay on the Sparks", (stays,), aim=Aim("value", 0), unit="")


def growth(bench: Bench) -> Iterator[Figure]:
    found: dict[int, tuple[float, ...]] = {}
    busy: dict[int, tuple[float, ...]] = {}
    for count in (1, 2, 4, 8):
        with bench.serving("growth", count, **MP) as stack:
            logged_in = Dialled(bench.nodes[count - 1 : count])
            seen = [bench.previewed(stack) for _ in range(bench.repeats)]
            found[count], busy[count] = tuple(one.seconds for one in seen), tuple(one.cpu for one in seen)
            dialled = logged_in.most() / bench.repeats
        yield Figure("growth", f"preview without changes, {count} Spark{'s' * (count > 1)}", found[count])
        yield Figure("growth", f"its connections to the last of {count}", (dialled,), aim=CONNECTIONS, unit="")
    yield Figure("growth", "preview of 8 Sparks", found[8], "of 2 Sparks", found[2], Aim("times", 1.5))
    # The rest of it is the simulated Sparks', which have processors of their own elsewhere.
    yield Figure("growth", "its own processors' time, 8 Sparks", busy[8], "2 Sparks", busy[2])


class Reference:
    """The scripts that people run today (reference.sh)."""

    def __init__(self, engine: str, image: str, outputs: dict[str, Any], nodes: Sequence[Spark]) -> None:
        head, worker = (outputs["nodes"][spark.name] for spark in nodes)
        logins = [" ".join(sparks.ssh_argv(spark)) for spark in nodes]
        self.engine = engine
        # As the program has it: by name they would want every file of the repository, also what no engine reads.
        self.model = snapshot_directory(HF_HOME, Model(REPO, outputs["revision"], (), {}))
        self.environment = {
            **os.environ, "HEAD_SSH": logins[0], "WORKER_SSH": logins[1], "HEAD": head["address"], "IMAGE": image,
            "WORKER": worker["address"], "INTERFACE": head["interface"], "HCAS": ",".join(head["hcas"]), "CACHE": CACHE,
            "REPO": REPO, "RAY_VERSION": RaySettings().version,
        }  # fmt: skip

    def answers(self, stack: Stack, outputs: dict[str, Any]) -> None:
        """Start, to the first completion. `outputs`: of the stack, whose address theirs is."""
        self.run("start")
        stack.complete(outputs={**outputs, "model": self.model})

    def run(self, action: str) -> None:
        argv = [str(REFERENCE), self.engine, action, self.model]
        subprocess.run(argv, env=self.environment, check=True, timeout=600)


ENGINES = {
    "vLLM on Ray": (RAY, "vllm", WITHOUT_RAY, 18.0),
    "SGLang": ({"engine": "sglang"}, "sglang", sglang.IMAGE, 10.0),
}


def ups(bench: Bench) -> Iterator[Figure]:
    """To the first completion, of engines that load nothing."""
    with sparks.turned(bench.nodes[:2], **AT_ONCE):
        yield from raised(bench)


def raised(bench: Bench) -> Iterator[Figure]:
    for name, (config, engine, image, limit) in ENGINES.items():
        if bench.quick and config is RAY:
            continue
        ours, theirs, their_logins = [], [], []
        outputs = in_place(bench, config)
        for _ in range(bench.repeats):
            with bench.prepared("up", 2, **config) as stack:
                ours.append(risen(stack, outputs))
            reference = Reference(engine, image.partition("@")[0], outputs, stack.nodes)
            logged_in = Dialled(stack.nodes)
            try:
                theirs.append(seconds(partial(reference.answers, stack, outputs)))
                their_logins.append(logged_in.most())
            finally:
                reference.run("stop")
        whole = tuple(one.seconds for one in ours)
        yield Figure("up", f"{name}: `up` to the first answer", whole, "the scripts", tuple(theirs), Aim("times", 0.5))
        yield from parts(name, ours, limit, tuple(their_logins))
    ours = []
    outputs = in_place(bench, MP)
    for _ in range(bench.repeats):
        with bench.prepared("up", 2, **MP) as stack:
            ours.append(risen(stack, outputs))
    yield from parts("vLLM without Ray", ours, 10.0)


def in_place(bench: Bench, config: dict[str, Any]) -> dict[str, Any]:
    """A stack's outputs, which has been up and is gone: everything is in place, also what an image lacks."""
    with bench.serving("up", 2, **config) as stack:
        return stack.outputs()


def parts(name: str, ours: Sequence[Risen], limit: float, theirs: tuple[int, ...] = ()) -> Iterator[Figure]:
    """Of some `up`s. `theirs`: connections of the scripts."""
    own = tuple(one.own for one in ours)
    yield Figure("up", f"{name}: of `up`, not the server's start", own, aim=Aim("value", limit))
    if formed := tuple(one.forming for one in ours if one.forming is not None):
        yield Figure("up", f"{name}: of which Ray's forming", formed)
    dialled = tuple(one.dialled for one in ours)
    against = "the scripts" if theirs else ""
    yield Figure("up", f"{name}: connections to a Spark during `up`, at most", dialled, against, theirs, unit="")


def switches(bench: Bench) -> Iterator[Figure]:
    """With weights of both models in place; a client that asks for the name that both are served under."""
    config = {"engine": "sglang", "weights": {"stage": MODELS}, "serving": {"servedModelName": NAME}}
    models = itertools.cycle(MODELS)
    ours, beyond, lost = [], [], []
    with bench.serving("switch", 2, **config) as stack:
        outputs = stack.outputs()
        for _ in range(bench.repeats):
            stack.configure(**config, model=next(models))
            with Client(outputs["api_base"], NAME) as client:
                stack.up()
                client.answers_again()
            ours.append(client.silence())
            beyond.append(ours[-1] - startup(stack))
            lost.append(client.lost)
        drained = list(drains(stack, config, models, bench.repeats))
    reference, theirs, their_lost = Reference("sglang", sglang.IMAGE.partition("@")[0], outputs, stack.nodes), [], []
    reference.run("start")
    try:
        for _ in range(bench.repeats):
            with Client(outputs["api_base"], reference.model) as client:
                reference.run("stop")
                reference.run("start")
                client.answers_again()
            theirs.append(client.silence())
            their_lost.append(client.lost)
    finally:
        reference.run("stop")
    yield Figure(
        "switch", "another model: silence", tuple(ours), "stop all, start all", tuple(theirs), Aim("times", 1.0)
    )
    yield Figure("switch", "of it, beyond the server's start", tuple(beyond), aim=Aim("value", 2.0))
    none = Aim("value", 0)
    yield Figure(
        "switch", "requests accepted and lost", tuple(lost), "stop all, start all", tuple(their_lost), none, unit=""
    )
    longest = tuple(max(client.took) for client in drained)
    yield Figure("switch", "long requests: the longest answer", longest)
    yield Figure("switch", "long requests accepted and lost", tuple(one.lost for one in drained), aim=none, unit="")


def drains(stack: Stack, config: dict[str, Any], models: Iterator[str], repeats: int) -> Iterator[Client]:
    """One for each switch, whose client had a request in flight all the time that took seconds."""
    with sparks.turned(stack.nodes, **SLOWLY):
        # Servers read their knobs when they start.
        stack.configure(**config, model=next(models))
        stack.up()
        base = stack.outputs()["api_base"]
        for _ in range(repeats):
            stack.configure(**config, model=next(models))
            with Client(base, NAME, long=True) as client:
                client.answers_again()
                stack.up()
                client.answers_again()
            yield client


def starts(bench: Bench) -> Iterator[Figure]:
    """Of an engine that compiles for `COMPILES` seconds, where it finds nothing that it compiled before."""
    first, second = [], []
    spark = bench.nodes[0]
    with sparks.turned([spark], compile_seconds=COMPILES):
        for _ in range(bench.repeats):
            for volume in sparks.on(spark, "docker volume ls -q --filter name=dgx-spark-compiled").split():
                sparks.on(spark, f"docker volume rm {volume}")
            with bench.serving("start", 1, engine="sglang") as stack:
                first.append(startup(stack))
                stack.configure(engine="sglang", serving={"maxModelLen": 4096})
                stack.up()
                second.append(startup(stack))
    yield Figure(
        "start",
        "a server's start, with what it compiled before",
        tuple(second),
        "without",
        tuple(first),
        Aim("times", 1),
    )


GROUPS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "preview": previews,
    "growth": growth,
    "up": ups,
    "switch": switches,
    "start": starts,
    "copy": lambda bench: copies.measured(bench.nodes, bench.repeats, copies.QUICK if bench.quick else copies.SIZE),
}
LONG = ("growth", "start")
"""Not where time is short, nor what Ray adds."""


@contextmanager
def up(count: int) -> Iterator[list[Spark]]:
    """Simulated Sparks. SPARK_KEEP=1: those that are up, which stay."""
    if os.environ.get("SPARK_KEEP") == "1":
        yield sparks.existing()
        return
    try:
        yield simulation.up(count, print)
    finally:
        simulation.down()


def needed(names: Sequence[str], *, quick: bool) -> int:
    """Sparks for these groups."""
    return 8 if "growth" in names or ("copy" in names and not quick) else 3


def measured(names: Sequence[str], *, quick: bool) -> Run:
    found: list[Figure] = []
    with up(needed(names, quick=quick)) as nodes, tempfile.TemporaryDirectory() as folder:
        bench = Bench(nodes, quick, Path(folder).resolve())
        for name in names:
            print(f"measuring: {name}", flush=True)
            found += GROUPS[name](bench)
    where = f"{pulumi.chosen().name}, simulated Sparks, {platform.machine()}, {cores()} cores"
    return report.now(where, found, quick=quick)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--quick", action="store_true")
    words.add_argument("--only", choices=GROUPS, action="append")
    options = words.parse_args()
    # Else each preview would compile the program anew, and people's do not.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    every = [name for name in GROUPS if not (options.quick and name in LONG)]
    run = measured(options.only or every, quick=options.quick)
    report.finish(run)


if __name__ == "__main__":
    main()
