"""What a user reads when an endpoint does not come up."""

import os
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from components.programs import readiness
from components.programs.startups import Starts
from components.scripts.shared import progress
from simulator.images import STANDINS


@pytest.fixture(autouse=True)
def _nobody_else_speaks(monkeypatch):
    monkeypatch.setattr(readiness, "LAST_WORDS", 0)


def followed(*messages, engine="sglang", rdma="warn", ranks=()):
    inbox = queue.Queue()
    for message in messages:
        inbox.put(message)
    return readiness.follow(inbox, engine, 60, rdma, set(ranks), Starts(Path("/nonexistent"), "demo"))


@pytest.fixture
def spark(tmp_path, monkeypatch):
    """A Spark whose watch prints and ends as told; returns what the inbox then holds."""

    def reports(says, code=0, words=""):
        fake = tmp_path / "ssh"
        (tmp_path / "says").write_bytes(says)
        fake.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {tmp_path}/says\necho '{words}' >&2\nexit {code}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        inbox = queue.Queue()
        target = {"name": "spark-1", "host": "h", "port": 22, "user": "u", "host_key": "k", "key_file": None}
        watch = readiness.Watch({"ssh": target, "inputs": {}}, 60, inbox)
        watch.reader.join(60)
        watch.end()
        return [inbox.get_nowait()[1] for _ in range(inbox.qsize())]

    return reports


def test_what_is_no_message_of_the_watch_is_passed_over(spark):
    said = b'Welcome!\n{"health": true}\n[1]\n\xff\n{"ready": {"text": "Paris"}}\n'
    assert spark(said) == [{"health": True}, {"ready": {"text": "Paris"}}]


@pytest.mark.parametrize(
    ("said", "code", "words", "lost"),
    [
        (b"python3: not found\n", 0, "", "python3: not found"),
        (b"", 0, "", "ssh ended without a word"),
        (b"", 255, "Connection refused", "Connection refused"),
        (b'{"health": true}\n', 0, "", "ssh ended without a word"),
    ],
)
def test_a_watch_that_ends_before_its_last_message_is_lost_and_nobody_waits_for_it(spark, said, code, words, lost):
    assert spark(said, code, words)[-1] == {"lost": lost}


def test_a_log_that_says_the_same_is_not_told_again_and_again(monkeypatch, capsys):
    monkeypatch.setattr(readiness, "EVERY", 0)
    logs = [("spark-1", {"log": ["dgx-spark-x-server", ["first", line]]}) for line in "aaabba"]
    followed(*logs, ("spark-1", ANSWER))
    told = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [text for text in told if len(text) == 1] == ["a", "b", "a"]


def test_what_was_said_already_is_said_less_often_the_longer_it_takes():
    for elapsed, seconds in ((0, 10), (59, 10), (60, 30), (599, 30), (600, 60), (5000, 60)):
        assert readiness.silence(elapsed, new=False) == progress.pause(elapsed) == seconds
        assert readiness.silence(elapsed, new=True) == readiness.EVERY


STARTUP = {"started": "2026-11-26T20:00:00.1Z", "port": 61, "health": 540, "answer": 548}
ANSWER = {"ready": {"text": "Paris", "models": ["m"], "startup": STARTUP}}


def test_a_start_is_told_as_it_was_seen(capsys):
    assert followed(("spark-1", ANSWER)) == 0
    assert "port open after 61 s, /health after 540 s, first answer after 548 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("RuntimeError: CUDART error: invalid device context", "--enable-dp-attention"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "lower serving.gpuMemoryUtilization"),
        ("vllm: error: unrecognized arguments: --swap-space=16", "correct serving.extraArgs"),
    ],
)
def test_a_known_failure_comes_with_its_remedy(capsys, line, remedy):
    log = ("spark-2", {"log": ["dgx-spark-x-server", ["INFO fine", line]]})
    assert followed(log, ("spark-2", {"ended": ["dgx-spark-x-server", "has ended with exit code 1"]})) == 1
    said = capsys.readouterr().err
    assert line in said
    assert "spark-2: dgx-spark-x-server has ended with exit code 1" in said
    assert remedy in said.splitlines()[-1]


def test_an_unknown_failure_gets_no_invented_remedy(capsys):
    followed(("spark-1", {"ended": ["server", "has ended with exit code 7"]}))
    assert "→" not in capsys.readouterr().err


def network(node, *ranks, finding="", proven=True):
    """What a container's ranks say of NCCL; `ranks`: (host, network)."""
    said = [{"host": host, "network": name, "proven": proven, "finding": finding} for host, name in ranks]
    return (node, {"nccl": said})


def test_a_failures_lines_are_shown_whole(capsys):
    line = "ValueError: " + "too long " * 100 + "the end"
    log = ("spark-2", {"log": ["dgx-spark-x-server", [line]]})
    followed(log, ("spark-2", {"ended": ["dgx-spark-x-server", "has ended with exit code 1"]}))
    assert line in capsys.readouterr().err


def test_a_reason_far_above_the_last_lines_is_shown_with_its_remedy(capsys):
    # As vLLM 0.32 ends: each process tells its own traceback, and the last one says "See root cause above".
    cause = "(EngineCore pid=66) ERROR 11-26 22:40:01 [core.py:1010] torch.OutOfMemoryError: CUDA out of memory."
    last = "RuntimeError: Engine core initialization failed. See root cause above."
    frames = [f'(APIServer pid=1)   File "x.py", line {n}' for n in range(126)]
    warning = (
        "(APIServer pid=8) WARNING 11-27 05:09:24 [system_utils.py:255] Found ulimit of 20000. This can cause fd limit "
        "errors like `OSError: [Errno 24] Too many open files`"
    )
    log = ("spark-2", {"log": ["dgx-spark-x-server", [warning, *frames, cause, cause, *frames, last]]})
    followed(log, ("spark-2", {"ended": ["dgx-spark-x-server", "has ended with exit code 1"]}))
    said = capsys.readouterr().err.splitlines()
    assert said[1:3] == [f"    {cause}", "    …"]
    assert f"    {last}" in said
    assert "→" in said[-1]
    assert len(said) < 50


def test_the_reason_is_shown_of_what_a_genuine_vllm_prints(capsys):
    # Its stand-in has it recorded.
    fail = """
from vllm import failing
try:
    raise RuntimeError("CUDA error: out of memory")
except RuntimeError as error:
    failing.failed(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(STANDINS)}
    printed = subprocess.run([sys.executable, "-c", fail], env=environment, capture_output=True, text=True, check=True)
    lines = (printed.stdout + printed.stderr).splitlines()
    assert len(lines) > 200
    followed(
        ("spark-2", {"log": ["dgx-spark-x-server", lines]}),
        ("spark-2", {"ended": ["dgx-spark-x-server", "has ended with exit code 1"]}),
    )
    said = capsys.readouterr().err.splitlines()
    assert said[1].endswith("] RuntimeError: CUDA error: out of memory")
    assert said[-1].startswith("  → lower serving.gpuMemoryUtilization")
    assert len(said) < 60


def test_an_answer_that_makes_no_sense_names_what_each_engine_can_change(capsys):
    for engine, word in (
        ("vllm", "--moe-backend=marlin"),
        ("sglang", "--moe-runner-backend"),
        ("trtllm", "quantisation"),
    ):
        assert followed(("spark-1", {"wrong": "the answer makes no sense: 'lockhandle'"}), engine=engine) == 1
        said = capsys.readouterr().err
        assert word in said
        assert "serving.checkAnswer false" in said


def test_sockets_in_place_of_rdma_are_a_warning_or_by_config_a_failure(capsys):
    slow = network("spark-2", ("spark-2", "Socket"), finding="NCCL finds no RDMA device in the container")
    assert followed(slow, ("spark-1", ANSWER)) == 0
    said = capsys.readouterr().out
    assert "WARNING: NCCL is on sockets and not on RDMA (spark-2)" in said
    assert "spark-2: NCCL is on Socket (NCCL finds no RDMA device in the container)" in said
    assert followed(slow, ("spark-1", ANSWER), rdma="require") == 1
    assert followed(network("spark-2", ("spark-2", "IB")), ("spark-1", ANSWER), rdma="require") == 0


def test_a_rank_that_says_so_just_after_the_answer_counts_too(monkeypatch, capsys):
    monkeypatch.setattr(readiness, "LAST_WORDS", 60)
    late = network("spark-2", ("spark-2", "Socket"))
    early = network("spark-1", ("spark-1", "IB"))
    assert followed(early, ("spark-1", ANSWER), late, ranks=("spark-1", "spark-2"), rdma="require") == 1
    assert "(spark-2)" in capsys.readouterr().err


def test_of_ranks_that_share_a_log_the_one_without_rdma_is_named(capsys):
    both = network("spark-1", ("spark-1", "IB"), ("spark-2", "Socket"))
    assert followed(both, ("spark-1", ANSWER), rdma="require") == 1
    assert "(spark-2)" in capsys.readouterr().err


def test_a_choice_is_told_from_a_proof_and_silence_from_both(capsys):
    said = network("spark-1", ("spark-1", "IB"), proven=False)
    silent = network("spark-2", ("spark-2", ""))
    assert followed(said, silent, ("spark-1", ANSWER), ranks=("spark-1", "spark-2")) == 0
    text = capsys.readouterr().out
    assert "spark-1: NCCL is on IB (chosen)" in text
    assert "spark-2: NCCL has not said which network it uses" in text
