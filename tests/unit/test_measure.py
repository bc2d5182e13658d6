"""./spark measure: on a stack's own Sparks, which it leaves as they are, and on simulated ones."""

import os
import socket
import subprocess

import pytest

from benchmarks import copies, real, sockets
from benchmarks import measure as simulated
from benchmarks.empty import Empty
from components.programs.startups import Starts
from ops import measure, pulumi
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import Stack
from tests.unit.build import settings

NOW, FORMER = ({"started": f"2026-11-2{n}", "configuration": "c", "port": 1, "health": 2, "answer": n} for n in (7, 6))


class Serving(Stack):
    """Its head tells how its server started."""

    def ask(self, script, inputs, **_):
        assert script == "look.py"
        return {name: {"startup": NOW} for name in inputs}


@pytest.fixture
def sshd():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, monkeypatch, sshd):
    """Makes a stack of two Sparks, one of which listens. pulumi writes down its words and connects to that one once."""
    monkeypatch.delenv("SPARK_ENGINE", raising=False)
    programs = {
        "pulumi": f"echo $* >>{tmp_path}/calls; exec 3<>/dev/tcp/127.0.0.1/{sshd}; cat {tmp_path}/steps",
        "ssh": f"exit $(cat {tmp_path}/exit)",
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "exit").write_text("0")

    def make(steps="[]"):
        (tmp_path / "steps").write_text(f'{{"stack": "organization/dgx-spark/test", "steps": {steps}}}')
        nodes = [{"name": f"spark-{n}", "host": f"127.0.0.{n}", "port": sshd} for n in (1, 2)]
        for start in (FORMER, NOW):
            Starts(tmp_path, "test").remember(start)
        return Serving(Project(tmp_path, dict(os.environ)), "test", settings(nodes=nodes))

    return make


def test_a_stack_that_serves_is_measured_and_nothing_is_changed(cluster, tmp_path):
    empty = []
    found = {one.name: one for one in real.measured(cluster(), lambda: empty.append(1), 3)}
    assert [len(one.ours) for one in found.values()] == [3] * (len(found) - 1) + [1]
    assert found["preview without changes"].against == "an empty program"
    assert len(found["preview without changes: beside it"].theirs) == len(empty) == 3
    assert found["its connections to a Spark, at most"].ours == (1, 1, 1)
    start = found["the server's start, to the first answer"]
    assert (start.ours, start.theirs) == ((7,), (6,))
    called = {tuple(line.split()[:2]) for line in (tmp_path / "calls").read_text().splitlines()}
    assert called == {("preview", "--json"), ("preview", "--expect-no-changes"), ("stack", "output")}


def test_a_stack_with_changes_is_not_measured(cluster):
    steps = '[{"op": "create", "urn": "urn:pulumi:test::dgx-spark::a:b/c:C::server"}]'
    with pytest.raises(CommandError, match="`pulumi up` first: server would change"):
        list(real.measured(cluster(steps), int, 1))


def test_a_spark_that_cannot_be_reached_ends_it(cluster, tmp_path):
    (tmp_path / "exit").write_text("255")
    with pytest.raises(CommandError, match="can't be reached"):
        list(real.measured(cluster(), int, 1))


def test_a_run_of_a_stack_can_be_compared_with_another_of_it_alone(cluster, monkeypatch):
    class Nothing:
        def __init__(self, folder, argv):
            assert argv == ("pulumi",)

        def preview(self):
            pass

    monkeypatch.setattr(real, "Empty", Nothing)
    quick, full = (real.run(cluster(), quick=quick) for quick in (True, False))
    assert (quick.kind, full.kind) == ("quick", "full")
    assert quick.where == full.where
    assert "the Pulumi CLI, test" in full.where
    assert {len(one.ours) for one in full.figures[:-1]} == {real.REPEATS}


def test_an_empty_program_is_up_and_keeps_its_state_to_itself(tmp_path, monkeypatch):
    pulumi_ = tmp_path / "pulumi"
    pulumi_.write_text(f'#!/bin/sh\necho "$PWD $PULUMI_BACKEND_URL $1" >>{tmp_path}/calls; [ $1 != preview ]\n')
    pulumi_.chmod(0o755)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://of-the-stack")
    folder = tmp_path / "empty"
    nothing = Empty(folder, [str(pulumi_)])
    with pytest.raises(CommandError, match="an empty program's preview failed"):
        nothing.preview()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"{folder} file://{folder}/state {word}" for word in ("stack", "up", "preview")]


def test_connections_to_one_port_are_counted_when_they_are_closed_too(sshd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        before = sockets.towards("127.0.0.1", sshd)
        socket.create_connection(("127.0.0.1", sshd)).close()
        with socket.create_connection(("127.0.0.1", sshd)), socket.create_connection(other.getsockname()):
            assert len(sockets.towards("127.0.0.1", sshd) - before) == 2
    assert sockets.towards("nobody.invalid", sshd) == set()


def test_addresses_are_read_in_the_kernels_notation():
    line = "   0: 0100007F:{local} {remote} 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000"
    written = [
        line.format(local="0016", remote="0B01A8C0:0016"),
        line.format(local="0017", remote="0000000000000000FFFF00000B01A8C0:0016"),
        line.format(local="0018", remote="B80D0120000000000000000001000000:08AE"),
    ]
    assert list(sockets.parse("\n".join(["  sl  local_address", *written]))) == [
        ("0100007F:0016", "192.168.1.11", 22),
        ("0100007F:0017", "192.168.1.11", 22),
        ("0100007F:0018", "2001:db8::1", 2222),
    ]


def test_groups_are_of_simulated_sparks_alone():
    with pytest.raises(CommandError, match="--only is for simulated Sparks"):
        measure.measure("mine", ["copy"], quick=False)


@pytest.mark.parametrize(
    ("given", "program"),
    [
        ((None, ["copy", "up"]), ["benchmarks.measure", "--quick", "--only=copy", "--only=up"]),
        (("mine", []), ["benchmarks.real", "mine", "--quick"]),
    ],
)
def test_each_is_measured_by_a_program_of_its_own(monkeypatch, given, program):
    called = []

    def run(argv, cwd):
        called.append((argv[2:], cwd))
        return subprocess.CompletedProcess(argv, 3)

    monkeypatch.setattr(measure.subprocess, "run", run)
    assert measure.measure(*given, quick=True) == 3
    assert called == [(program, pulumi.ROOT)]


def test_copies_go_to_seven_as_the_documentation_says_but_not_where_time_is_short():
    assert simulated.needed(["copy"], quick=False) == 8
    assert simulated.needed(["preview", "copy"], quick=True) == 3
    assert simulated.needed(["growth"], quick=True) == 8
    assert simulated.needed(["preview", "up", "switch", "start"], quick=False) == 3


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (" +  command:remote:Command cluster-ray-formed created (3.25s)\n", 3.25),
        (" +  command:remote:Command cluster-ray-formed creating (0s) \n"
         " +  command:remote:Command cluster-ray-formed created (12s) \n", 12.0),
        (" +  command:remote:Command endpoint-ready created (3.25s)\n", None),
    ],
    ids=["hermetic", "CLI", "no Ray"],
)  # fmt: skip
def test_how_long_ray_took_to_form_is_read_of_what_pulumi_says(said, seconds):
    assert simulated.forming(said) == seconds


def test_bytes_that_left_are_read_of_the_kernels_count():
    written = '[{"ifname": "x", "stats64": {"rx": {"bytes": 5}, "tx": {"bytes": 2500000, "packets": 9}}}]'
    assert copies.sent(written) == 2.5
