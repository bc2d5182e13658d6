"""A stack's own Sparks, while they serve: `./spark measure --stack`. Nothing is changed there, and what would take the
endpoint down is not measured: `up`, a switch, copies, growth."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import report, sockets
from benchmarks.empty import Empty
from benchmarks.figures import Aim, Figure, Run
from benchmarks.processes import cores, seconds, watched
from components.programs.startups import Starts
from components.remote import ssh
from ops import look, pulumi
from ops.project import short
from ops.pulumi import CommandError
from ops.stack import Stack, selected

GROUP = "stack"
REPEATS = 5


def measured(cluster: Stack, nothing: Callable[[], object], repeats: int) -> Iterator[Figure]:
    """Of a stack that serves. Raises CommandError where a preview shows changes: that one takes longer.

    nothing  previews an empty program
    """
    if changes := cluster.where.changes(cluster.stack):
        raise CommandError(f"`pulumi up` first: {', '.join(changes)} would change")
    seen, bare, logins, dialled = [], [], [], []
    for _ in range(repeats):
        before = _sockets(cluster)
        with watched(cluster.where.folder) as one:
            preview(cluster)
        seen.append(one)
        after = _sockets(cluster)
        dialled.append(max(len(now - was) for now, was in zip(after, before, strict=True)))
        bare.append(seconds(nothing))
        logins.append(seconds(lambda: log_in(cluster)))
    ours, name = tuple(one.seconds for one in seen), "preview without changes"
    yield Figure(GROUP, name, ours, "an empty program", tuple(bare), Aim("more", 1.3))
    yield Figure(GROUP, f"{name}: beside it", ours, "one `ssh true` to each Spark", tuple(logins))
    # Through a jump host none is seen from here.
    if any(dialled):
        yield Figure(GROUP, "its connections to a Spark, at most", tuple(dialled), aim=Aim("value", 2), unit="")
    if any(one.memory for one in seen):
        yield Figure(GROUP, "its program's memory", tuple(one.memory for one in seen), aim=Aim("value", 120), unit="MB")
        yield Figure(GROUP, "memory of program, engine and ssh", tuple(one.whole for one in seen), unit="MB")
    yield Figure(GROUP, "its processors' time", tuple(one.cpu for one in seen))
    if startup := look.startup(cluster):
        known = Starts(cluster.where.folder, short(cluster.stack)).former(startup["configuration"])
        former = tuple(float(one["answer"]) for one in known if one != startup)
        last = (float(startup["answer"]),)
        yield Figure(GROUP, "the server's start, to the first answer", last, "its former starts", former)


def preview(cluster: Stack) -> None:
    words = ["preview", "--expect-no-changes", "--diff", "--stack", cluster.stack]
    pulumi.output(words, cluster.where.env, cluster.where.folder)


def log_in(cluster: Stack) -> None:
    argvs = [[*ssh.argv(node, cluster.settings.ssh), "true"] for node in cluster.settings.nodes]
    with ThreadPoolExecutor(len(argvs)) as pool:
        codes = list(pool.map(lambda argv: subprocess.run(argv, stdin=subprocess.DEVNULL).returncode, argvs))
    if any(codes):
        raise CommandError("a Spark can't be reached: ./spark doctor")


def _sockets(cluster: Stack) -> list[set[str]]:
    """Of each Spark: connections to its sshd."""
    settings = cluster.settings
    return [sockets.towards(node.host, settings.ssh.login(node).port) for node in settings.nodes]


def run(cluster: Stack, *, quick: bool) -> Run:
    cli = pulumi.chosen(cluster.where.env)
    where = f"{cli.name}, {cluster.stack}, {platform.machine()}, {cores()} cores"
    with tempfile.TemporaryDirectory() as folder:
        nothing = Empty(Path(folder).resolve() / "empty", cli.argv)
        found = list(measured(cluster, nothing.preview, 1 if quick else REPEATS))
    return report.now(where, found, quick=quick)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("stack")
    words.add_argument("--quick", action="store_true")
    options = words.parse_args()
    # Else each preview would compile the program anew, and people's do not.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        report.finish(run(selected(options.stack), quick=options.quick))
    except CommandError as error:
        sys.exit(f"spark: {error}")


if __name__ == "__main__":
    main()
