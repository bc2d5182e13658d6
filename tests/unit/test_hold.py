"""One `up` of a stack at a time on a Spark, held over the connection that asks it, which all of the program shares."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from components.remote import ask, hold, parcel, ssh
from components.resources import ending
from tests.unit.build import settings


@pytest.fixture
def stack():
    return f"organization/dgx-spark/{uuid.uuid4().hex}"


def started(home, stack, who):
    command = parcel.command("hold.py", "apply", limit=60).replace("python3", sys.executable, 1)
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=home.environment(),
    )  # fmt: skip
    process.stdin.write(json.dumps(parcel.pack("hold.py", {"stack": stack, "who": who})))
    process.stdin.close()
    return process


def test_who_comes_second_is_told_by_whom_and_gets_it_when_the_first_is_gone(home, stack):
    first = started(home, stack, "anna@laptop since 18:02")
    assert first.stdout.readline() == "held\n"
    second = started(home, stack, "ben@desk since 18:03")
    assert second.stdout.read() == ""
    said = second.stderr.read().strip()
    assert said.startswith("another `up` of this stack is under way: anna@laptop since 18:02 (here by process ")
    # Whose machine is gone can be ended by this.
    assert "hold.py" in Path(f"/proc/{re.findall('[0-9]+', said)[-1]}/cmdline").read_text()
    # Its program has ended, and nobody reads what it prints.
    first.stdout.close()
    third = started(home, stack, "ben@desk since 18:03")
    assert third.stdout.readline() == "held\n"
    third.stdout.close()
    assert [process.wait(timeout=20) for process in (first, second, third)] == [0, 1, 0]


@pytest.mark.parametrize("longer", ["", "x" * 100], ids=["usual", "longer than a socket's name may be"])
def test_another_stack_is_another_matter(home, stack, longer):
    first, other = started(home, stack + longer, "anna"), started(home, f"{stack}{longer}2", "ben")
    for process in (first, other):
        assert process.stdout.readline() == "held\n"
        process.stdout.close()
        process.wait(timeout=20)


@pytest.fixture
def spark(tmp_path, monkeypatch, home):
    """Settings with one, whose ssh is a shell here; each call's words are a line of `calls`."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\nfor last; do :; done\nexec sh -c "$last"\n')
    program.chmod(0o755)
    (program.parent / "python3").symlink_to(sys.executable)
    for name, value in home.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    scripts = tmp_path / "scripts"
    (scripts / "shared").mkdir(parents=True)
    for path in (*parcel.FOLDER.glob("shared/*.py"), parcel.FOLDER / "hold.py"):
        (scripts / path.relative_to(parcel.FOLDER)).write_text(path.read_text())
    (scripts / "probe.py").write_text("import json, sys\nprint(json.dumps(json.load(sys.stdin)))\n")
    monkeypatch.setattr(parcel, "FOLDER", scripts)
    yield settings(1)
    hold.end()


def asked(lines):
    return ask.ask(lines, {name: parcel.asking("probe.py", {"a": "ä"}) for name in lines}, stay=True)


def words(call, option):
    return [word.partition("=")[2] for word in call.split() if word.startswith(f"{option}=")]


def test_one_connection_asks_a_spark_and_then_holds_it_and_is_shared(spark, stack, tmp_path):
    lines = hold.dial(spark)
    assert asked(lines) == {"spark-1": {"facts": {"a": "ä"}, "noise": ""}}
    assert hold.hold(lines, stack) == []
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert (words(call, "ControlMaster"), words(call, "ControlPersist")) == (["yes"], ["no"])
    target = ssh.target(spark.nodes[0], spark.ssh)
    (socket,) = words(call, "ControlPath")
    assert hold.shared(target) == ["-o", f"ControlPath={socket}"]
    assert hold.shared(replace(target, host="10.0.0.2")) == []
    assert Path(socket).parent.is_dir()
    hold.end()
    assert hold.shared(target) == []
    assert not Path(socket).parent.exists()


def test_another_up_is_told_apart_from_a_former_one_of_this_process(spark, stack, home):
    theirs = started(home, stack, "ben@desk since 18:03")
    assert theirs.stdout.readline() == "held\n"
    lines = hold.dial(spark)
    asked(lines)
    (problem,) = hold.hold(lines, stack)
    assert problem.wrong.startswith("another `up` of this stack is under way: ben@desk since 18:03 (here by process ")
    theirs.stdout.close()
    theirs.wait(timeout=20)
    for _ in range(2):
        lines = hold.dial(spark)
        asked(lines)
        assert hold.hold(lines, stack) == []


def test_where_a_sockets_path_would_be_too_long_each_has_a_connection_of_its_own(spark, stack, tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    lines = hold.dial(spark)
    asked(lines)
    assert hold.hold(lines, stack) == []
    assert "Control" not in (tmp_path / "calls").read_text()
    assert hold.shared(ssh.target(spark.nodes[0], spark.ssh)) == []


@pytest.mark.parametrize(
    ("probe", "kind", "detail"),
    [
        ("import sys; sys.exit('sudo: a password is required')", "sudo", "sudo: a password is required"),
        ("print('half')", "answer", "<dgx-spark:answer>half </dgx-spark:answer>"),
    ],
)
def test_a_spark_that_does_not_answer_is_told_as_in_a_preview(spark, monkeypatch, probe, kind, detail):
    (parcel.FOLDER / "probe.py").write_text(probe)
    (line,) = hold.dial(spark).values()
    assert ask.answer(line, parcel.asking("probe.py", {}), stays=True) == {"error": {"kind": kind, "detail": detail}}


INTERRUPTED = """
import os, signal
from components.remote import hold
from components.resources import ending
ending.quietly()
ending.BEFORE.add(hold.end)
print(hold._socket(), flush=True)
os.kill(os.getpid(), signal.SIGINT)
"""


def test_an_up_that_is_interrupted_leaves_nothing_here():
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (ending.TOLD, "")
    assert not Path(run.stdout.strip()).parent.exists()
