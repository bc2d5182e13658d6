"""What ./spark measure sees of a command while it runs: its processes' memory and processors, and nobody else's."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

from benchmarks import processes
from benchmarks.processes import Process

BUSY = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
SOME_LOOKS = 10 * processes.OFTEN
IDLE = "import sys; print(flush=True); sys.stdin.readline()"
LARGE = f"held = b'x' * 200_000_000; {IDLE}"


def python(words, folder):
    return subprocess.Popen([sys.executable, "-c", words], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextmanager
def running(*started):
    """Processes that are where they wait for input; until they are looked at at least once."""
    try:
        for process in started:
            process.stdout.readline()
        yield
        time.sleep(SOME_LOOKS)
    finally:
        for process in started:
            process.communicate()


def test_a_process_is_read_though_its_name_has_spaces_and_brackets():
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    counted = f"{tick} {tick * 2} {tick * 3} {tick * 4}"
    stat = f"12 (a) b (c) S 7 12 12 0 -1 0 0 0 0 0 {counted} 20 0 1 0 99 5000 1000 0"
    assert processes.parse(stat) == Process(7, 10.0, 1000 * page / 1e6)


def test_a_tree_is_what_is_below_but_for_what_is_left_out_and_what_is_below_that():
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 9: 1}
    every = {pid: Process(parent, 0, 0) for pid, parent in parents.items()}
    assert processes.tree(every, 2) == {2, 3, 4, 5}
    assert processes.tree(every, 2, without={4}) == {2, 3}
    assert processes.tree(every, 77) == set()


def test_memory_is_of_what_the_command_starts_and_of_its_program_alone(tmp_path):
    beside = tmp_path / "elsewhere"
    beside.mkdir()
    with running(python(LARGE, tmp_path)):
        with processes.watched(tmp_path) as seen:
            with running(python(IDLE, tmp_path), python(LARGE, beside)):
                pass
    assert 0 < seen.memory < 150
    assert 200 < seen.whole < 350


def test_processors_and_memory_of_another_machine_are_those_since_the_beginning_and_of_ended_children_too(tmp_path):
    parent = f"{IDLE}\nimport subprocess; subprocess.run([sys.executable, '-c', {BUSY!r}])\n{LARGE}"
    machine, still = python(parent, tmp_path), python(LARGE, tmp_path)
    with running(machine, still):
        with processes.watched(tmp_path, [machine.pid, still.pid]) as seen:
            machine.stdin.write(b"\n")
            machine.stdin.flush()
            machine.stdout.readline()
            time.sleep(SOME_LOOKS)
    assert seen.cpu_there[0] >= 0.3 > seen.cpu_there[1]
    assert seen.memory_there[0] >= 150 > seen.memory_there[1]
    assert seen.whole == 0


def test_an_idle_machine_takes_no_processors(tmp_path):
    still = python(IDLE, tmp_path)
    with running(still):
        assert processes.idle([still.pid], 0.1) == (0,)
