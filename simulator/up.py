"""Bring the whole simulation up or down: Sparks, images and the local hub."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from simulator import cache, hub, images, preflight, rootfs, sparks
from simulator.genuine import beside as genuine_beside
from simulator.genuine import image as genuine
from simulator.genuine import on_ray
from simulator.genuine.stack import ADA
from simulator.layout import CLAIM, GATEWAY, HUB_PORT, ROOT, RUN, Spark, Traits
from simulator.shell import SimulatorError

HUB = f"http://{GATEWAY}:{HUB_PORT}"


def up(
    count: int, say: Callable[[str], None], *, docker: str = Traits.docker, real: bool = False, beside: bool = False
) -> list[Spark]:
    """`count` running Sparks with their images loaded; those that run already are kept.

    real     with the image of a genuine vLLM, and its models on the hub (simulator/genuine/)
    beside   with a genuine gateway and chat page in place of their stand-ins
    """
    preflight.ensure()
    with sparks.exclusive():
        return _up(count, say, docker, real, beside)


def _up(count: int, say: Callable[[str], None], docker: str, real: bool, beside: bool) -> list[Spark]:
    wanted = [Spark(index, Traits(docker=docker)) for index in range(1, count + 1)]
    running = sparks.existing() if CLAIM.exists() else []
    sparks.claim()
    if running and not all(sparks.is_on(spark) for spark in running):
        say("an earlier simulation was cut short: clearing it away")
        _down()
        sparks.claim()
        running = []
    if running:
        if len(running) < count:
            raise SimulatorError(f"{len(running)} Sparks are up already; `./spark demo --down` first")
        if real and not (RUN / "hub" / ADA).exists():
            raise SimulatorError("Sparks without the genuine vLLM are up already; `./spark demo --down` first")
        return running
    try:
        built = _genuine(say, _make(say, docker), real, beside)
        say(f"booting {count} simulated Spark{'s' if count > 1 else ''}")
        sparks.plug_in(wanted)
        template = images.data(built, docker, partial(_fill, wanted[0], built))
        for spark in wanted:
            images.give(template, spark)
            sparks.power_on(spark)
        sparks.wait_until_up(wanted)
        _start_hub(genuine.models() if real else None)
        cache.prune()
    except BaseException:
        _down()
        raise
    return wanted


def make(say: Callable[[str], None], *, real: bool = False, beside: bool = False) -> None:
    """What needs the network, into the cache."""
    preflight.ensure()
    with sparks.exclusive():
        built = _make(say, Traits.docker)
    # Takes ten minutes and more, in which others may simulate.
    _genuine(say, built, real, beside)


def _make(say: Callable[[str], None], docker: str) -> images.Built:
    if not rootfs.is_made():
        say(f"making the Sparks' root file system, Debian {rootfs.SUITE} (two minutes, once on this machine)")
        rootfs.root()
    rootfs.with_docker(docker)
    say("building the images (a minute, where something changed)")
    return images.build()


def _genuine(say: Callable[[str], None], built: images.Built, real: bool, beside: bool) -> images.Built:
    if real:
        say("building the image with the genuine vLLM and training its models (ten minutes, once on this machine)")
        genuine.models()
        built = on_ray.added(genuine.added(built))
    if beside:
        say("building the images of the genuine gateway and chat page (five minutes, once on this machine)")
        built = genuine_beside.added(built)
    return built


def _fill(spark: Spark, built: images.Built, folder: Path) -> None:
    sparks.power_on(spark)
    sparks.wait_until_up([spark])
    images.load(spark, built)
    sparks.power_off(spark)
    images.store(spark, folder)


def _start_hub(more: Path | None) -> None:
    """`more`: a folder with models beside the simulated ones."""
    repositories = RUN / "hub"
    hub.publish(repositories)
    if more:
        hub.add(repositories, more)
    arguments = [str(repositories), str(images.wheels()), GATEWAY, str(HUB_PORT)]
    with open(RUN / "hub.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulator.hub", *arguments],
            cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    (RUN / "hub.pid").write_text(str(process.pid))
    sparks.wait_for(_hub_answers, "the local hub")


def _hub_answers() -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((GATEWAY, HUB_PORT)) == 0


def down() -> None:
    with sparks.exclusive():
        _down()


def purge() -> int:
    """Empty the cache; the bytes that were in it. Raises SimulatorError while Sparks are up."""
    with sparks.exclusive():
        if CLAIM.exists():
            raise SimulatorError(f"Sparks are simulated from {CLAIM.read_text()}, out of this cache: end them first")
        return cache.purge()


def _down() -> None:
    sparks.end(RUN / "hub.pid", marker="simulator.hub")
    sparks.down()


def remains() -> str:
    """Whatever this checkout's simulations might leave on this machine; '' when it is as before."""
    looks = (
        "ip netns list | grep '^spark-'",
        "ip -br link | grep -E '^(br-spark|mg-spark)'",
        "grep -E 'sim-spark|/.sim/run' /proc/mounts",
        "find /sys/fs/cgroup -type d -name 'sim-spark-*' -o -name 'sim-apart-spark-*'",
        # In brackets, lest it finds the shell that looks.
        f"pgrep -af '[/]{str(ROOT)[1:]}/(simulator|.sim)/'",
        "ls -d .sim/run*",
    )
    return subprocess.run("; ".join(looks), shell=True, cwd=ROOT, capture_output=True, text=True).stdout


def main(words: Sequence[str]) -> None:
    """`python -m simulator.up [COUNT]` or `python -m simulator.up down`, for people who work on the simulator."""
    if list(words) == ["down"]:
        down()
    else:
        up(int(words[0]) if words else 2, print)


if __name__ == "__main__":
    main(sys.argv[1:])
