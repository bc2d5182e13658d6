"""What a command takes while it runs, by looks at /proc: its seconds, processors and memory, and what is taken of other
machines that are simulated on this one. Where there is no /proc, memory is 0."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
OFTEN = 0.1
"""Seconds between two looks: each takes some milliseconds of what is measured."""


@dataclass(frozen=True)
class Process:
    parent: int
    cpu: float
    """Seconds of processors, with those of its children that have ended."""

    memory: float
    """MB that are resident; what processes share counts for each of them."""


@dataclass
class Seen:
    """Of one command."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds of processors, of all its processes."""

    memory: float = 0.0
    """MB of the largest Python process, at its largest: the program's."""

    whole: float = 0.0
    """MB of all its processes on this machine, at their largest: the program, its engine, its ssh."""

    cpu_there: tuple[float, ...] = ()
    """The same of each other machine, in the order of their roots: seconds of its processors …"""

    memory_there: tuple[float, ...] = ()
    """… and MB that it had more than at the beginning."""


def parse(stat: str) -> Process:
    """Source: proc(5), /proc/PID/stat: fields 4, 14 to 17 and 24. The second one may hold anything."""
    fields = stat.rpartition(")")[2].split()
    cpu = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return Process(int(fields[1]), cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6)


def look() -> dict[int, Process]:
    """PID → all that run now."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            found[int(folder.name)] = parse((folder / "stat").read_text())
        except OSError:  # it is gone
            continue
    return found


def tree(every: Mapping[int, Process], root: int, without: Collection[int] = ()) -> set[int]:
    """PIDs of `root` and of all below it, but for those `without` and below them."""
    children = defaultdict(list)
    for pid, process in every.items():
        children[process.parent].append(pid)
    found, left = set(), [root]
    while left:
        pid = left.pop()
        found.add(pid)
        left += [child for child in children[pid] if child not in without]
    return found & every.keys()


def cpu(every: Mapping[int, Process], root: int) -> float:
    return sum(every[pid].cpu for pid in tree(every, root))


def resident(every: Mapping[int, Process], pids: Collection[int]) -> float:
    return sum(every[pid].memory for pid in pids)


def seconds(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


@contextmanager
def watched(folder: Path, roots: Sequence[int] = ()) -> Iterator[Seen]:
    """What this process starts meanwhile.

    folder  where the program runs
    roots   PID of the first process of each other machine
    """
    seen, ended = Seen(), threading.Event()
    first = look()
    before = [resident(first, tree(first, root)) for root in roots]
    most = list(before)

    def watch() -> None:
        while not ended.wait(OFTEN):
            every = look()
            # What ran before is not of the command: simulated machines may be children of this process.
            new = tree(every, os.getpid(), without=first) - {os.getpid()}
            seen.memory = max([seen.memory, *(largest(pid) for pid in new if is_program(pid, folder))])
            seen.whole = max(seen.whole, resident(every, new))
            most[:] = [max(was, resident(every, tree(every, root))) for was, root in zip(most, roots, strict=True)]

    watcher = threading.Thread(target=watch)
    usage, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    watcher.start()
    try:
        yield seen
    finally:
        seen.seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seen.cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        last = look()
        seen.cpu_there = tuple(cpu(last, root) - cpu(first, root) for root in roots)
        ended.set()
        watcher.join()
        seen.memory_there = tuple(most_of - was for most_of, was in zip(most, before, strict=True))


def idle(roots: Sequence[int], seconds: float) -> tuple[float, ...]:
    """What each of these machines takes of its processors in so many seconds without the command."""
    before = look()
    time.sleep(seconds)
    after = look()
    return tuple(cpu(after, root) - cpu(before, root) for root in roots)


def is_program(pid: int, folder: Path) -> bool:
    """Is it a Python that runs in this folder?"""
    process = PROC / str(pid)
    try:
        return (process / "cwd").readlink() == folder and b"python" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def largest(pid: int) -> float:
    """MB, at its largest; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")), 0.0)


def cores() -> int:
    return os.cpu_count() or 1
