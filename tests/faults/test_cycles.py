"""Up and destroy, again and again: nothing is left, and nothing grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from simulator.layout import Spark
from tests.e2e.conftest import LEFT_BEHIND, Stack, changed, looks
from tests.faults.conftest import PLAIN
from tests.faults.trial import Around, fault
from tests.faults.under_way import UnderWay, pulumi

ANEW = r"sed -E 's/^veth.*/veth/; s,^(/run/docker/netns/)[0-9a-f]{12}$,\1,'"
"""What Docker names anew for a container of others that it starts again (Swarm restarts it)."""

LOOKS = {
    "programs": "ps -eo comm=,args= | grep -vE '^(sshd|sh|bash|ps|grep|sort|sudo)[- ]' | sort -u",
    "listening": "ss -Hltn | awk '{print $4}' | sort -u; ss -Hlx | grep -o '@dgx-spark.*' || true",
    "namespaces": "sudo lsns -n -o TYPE | sort | uniq -c",
    "interfaces": f"ls /sys/class/net | {ANEW}",
    "routes": "ip route",
    "mounted": f"cut -d' ' -f2 /proc/mounts | {ANEW} | sort",
    "shared memory": "ls /dev/shm; ipcs -m | wc -l",
}
"""What a Spark has beside what LEFT_BEHIND looks at."""

GROUPS = 'find /sys/fs/cgroup -type d -path "*-$(hostname)/*" | wc -l'
"""The kernel takes a while to remove them."""

DAEMONS = "pgrep -x 'dockerd|containerd'"
OPEN_FILES = f"for pid in $({DAEMONS}); do sudo ls /proc/$pid/fd; done | wc -l"
MEMORY = f"for pid in $({DAEMONS}); do grep VmRSS /proc/$pid/status; done | awk '{{sum += $2}} END {{print sum}}'"

SETTLED, SLACK = 5, 1.5
"""Cycles after which all have as much as they ever need, but for what differs from one moment to another."""


@dataclass
class Grown:
    """Cycle by cycle, after the destroy."""

    control_groups: list[int] = field(default_factory=list)
    open_files: list[int] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)
    engine_files: list[int] = field(default_factory=list)
    """Of Pulumi, in the middle of an `up`."""
    engine_kib: list[int] = field(default_factory=list)
    """The most that Pulumi had by then."""

    def note(self, spark: Spark, engine: tuple[int, int]) -> None:
        found = looks(spark, {"groups": GROUPS, "files": OPEN_FILES, "kib": MEMORY})
        self.control_groups.append(int(found["groups"]))
        self.open_files.append(int(found["files"]))
        self.kib.append(int(found["kib"]))
        self.engine_files.append(engine[0])
        self.engine_kib.append(engine[1])

    def assert_settled(self) -> None:
        print(self)
        for name, numbers in vars(self).items():
            assert numbers[-1] <= max(numbers[:SETTLED]) * SLACK, name


def had_by(run: UnderWay, line: int) -> tuple[int, int]:
    """Open files of Pulumi, and KiB of memory that it had at most, when it has said so many lines."""
    assert run.has_said(line), run.text
    process = Path(f"/proc/{run.process.pid}")
    (most,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return len(list((process / "fd").iterdir())), int(most.split()[1])


def seen(spark: Spark) -> dict[str, str]:
    return looks(spark, {**LEFT_BEHIND, **LOOKS})


@dataclass
class Cycles:
    stack: Stack
    around: Around
    before: dict[str, str]
    grown: Grown


@pytest.fixture(scope="module")
def cycles(simulated: list[Spark], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cycles]:
    """Of the third Spark alone, which has been through one."""
    spark = simulated[2]
    stack = Stack(tmp_path_factory.mktemp("cycles"), "cycles", [spark], serving=PLAIN)
    around = Around([spark])
    stack.up()
    stack.destroy()
    yield Cycles(stack, around, seen(spark), Grown())
    stack.destroy()
    around.remove()


@fault("`up` and `destroy` of one Spark, cycle after cycle", trials=50)
def test_of_one(cycles, trial, third):
    trial.around = cycles.around
    run = UnderWay(cycles.stack, pulumi(cycles.stack, "up"))
    engine = had_by(run, 20)
    assert run.rest().code == 0, run.text
    assert "paris" in cycles.stack.complete("The capital of France is")["choices"][0]["text"].lower()
    trial.ends_gone(cycles.stack)
    assert changed(cycles.before, seen(third)) == {}
    (state,) = (cycles.stack.folder / "state/.pulumi/stacks").rglob("cycles.json")
    assert '"urn"' not in Path(state).read_text()
    cycles.grown.note(third, engine)
    cycles.grown.assert_settled()


ENGINES = {
    "vllm": {"serving": PLAIN},
    "vllm-ray": {},
    "sglang": {"engine": "sglang"},
    "trtllm-mpi": {"engine": "trtllm", "serving": {"launcher": "mpi"}},
    "trtllm-swarm": {"engine": "trtllm"},
}


@pytest.fixture(scope="module")
def used(simulated: list[Spark], tmp_path_factory: pytest.TempPathFactory) -> list[Spark]:
    """Two Sparks that have had a container on the host's network, and one with the GPU: Docker, and the stand-in of the
    GPU, keep something from the first one on."""
    stack = Stack(tmp_path_factory.mktemp("used"), "used", simulated[:2], engine="sglang")
    try:
        stack.up()
    finally:
        stack.destroy()
    return stack.nodes


@fault("`up` and `destroy` of two Sparks with each engine, twice", trials=2)
@pytest.mark.parametrize("engine", ENGINES)
def test_of_two(used, tmp_path, trial, engine):
    trial.among(used)
    stack = Stack(tmp_path, engine, used, **ENGINES[engine])
    before = [seen(spark) for spark in used]
    try:
        trial.ends_right(stack, stack.up)
    finally:
        trial.ends_gone(stack)
    assert [changed(was, seen(spark)) for was, spark in zip(before, used, strict=True)] == [{}, {}]
