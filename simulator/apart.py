"""A second simulation beside this machine's, in network and mount namespaces of its own: the same names and addresses
twice. What runs there reaches its Sparks and nothing else.

`python -m simulator.apart [--real] [--beside] NAME COMMAND…` runs a command there, with three Sparks up, or as many as
SPARK_COUNT says, which have the images of a genuine vLLM (--real), and of a genuine gateway and chat page (--beside).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from simulator import up as simulation
from simulator.layout import NAMED, ROOT
from simulator.shell import SimulatorError, run

NAME = "apart"
"""Of the one that `./spark test` has (see up.remains)."""

COUNT = int(os.environ.get("SPARK_COUNT", "3"))
"""Sparks to bring up."""

REAL, BESIDE = GENUINE = ("--real", "--beside")


@dataclass(frozen=True)
class Apart:
    """How a command runs in there."""

    name: str
    keeper: int

    def argv(self, words: Sequence[str]) -> list[str]:
        # A mount namespace is entered at its root.
        there = ["nsenter", f"--target={self.keeper}", "--net", "--mount", "env", f"--chdir={ROOT}"]
        return [*there, f"{NAMED}={self.name}", *words]


@contextlib.contextmanager
def simulated(name: str, genuine: Sequence[str] = ()) -> Iterator[Apart]:
    """`COUNT` Sparks until the end; also when this process is killed, since the keeper sees its standard input end.
    `genuine`: of the words GENUINE.

    Raises SimulatorError when they do not come up; what is wrong is on standard error.
    """
    simulation.make(lambda _: None, real=REAL in genuine, beside=BESIDE in genuine)
    alone = ["unshare", "--net", "--mount", "--propagation", "private"]
    keeper = subprocess.Popen(
        [*alone, sys.executable, "-m", "simulator.apart", *genuine],
        cwd=ROOT, env={**os.environ, NAMED: name}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert keeper.stdin
    assert keeper.stdout
    try:
        if not keeper.stdout.readline():
            raise SimulatorError("the second simulation did not come up")
        yield Apart(name, keeper.pid)
    finally:
        keeper.stdin.close()
        keeper.wait()


def keep(genuine: Sequence[str]) -> None:
    """In the new namespaces: bring Sparks up, say so, and take them down when standard input ends."""
    os.makedirs("/run/netns", exist_ok=True)
    run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"])
    run(["ip", "link", "set", "lo", "up"])
    simulation.up(COUNT, lambda text: print(text, file=sys.stderr), real=REAL in genuine, beside=BESIDE in genuine)
    try:
        print("up", flush=True)
        sys.stdin.read()
    finally:
        simulation.down()


def main(words: Sequence[str]) -> int:
    genuine = list(takewhile(GENUINE.__contains__, words))
    if len(genuine) == len(words):
        keep(genuine)
        return 0
    name, *command = words[len(genuine) :]
    with simulated(name, genuine) as apart:
        return subprocess.run(apart.argv(command)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
