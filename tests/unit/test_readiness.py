"""What a user reads when an endpoint does not come up."""

import queue

import pytest

from components.programs import readiness


@pytest.fixture(autouse=True)
def _nobody_else_speaks(monkeypatch):
    monkeypatch.setattr(readiness, "LAST_WORDS", 0)


def followed(*messages, rdma="warn", ranks=()):
    inbox = queue.Queue()
    for message in messages:
        inbox.put(message)
    return readiness.follow(inbox, 60, rdma, set(ranks))


ANSWER = {"ready": {"text": "Paris", "models": ["m"]}}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("RuntimeError: CUDART error: invalid device context", "--enable-dp-attention"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "lower serving.gpuMemoryUtilization"),
        ("vllm serve: error: unrecognized arguments: --swap-space=16", "correct serving.extraArgs"),
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


def test_sockets_in_place_of_rdma_are_a_warning_or_by_config_a_failure(capsys):
    slow = ("spark-2", {"transport": ["server", "Socket"]})
    assert followed(slow, ("spark-1", ANSWER)) == 0
    assert "WARNING: NCCL is on sockets and not on RDMA (spark-2)" in capsys.readouterr().out
    assert followed(slow, ("spark-1", ANSWER), rdma="require") == 1
    assert followed(("spark-2", {"transport": ["server", "IB"]}), ("spark-1", ANSWER), rdma="require") == 0


def test_a_rank_that_says_so_just_after_the_answer_counts_too(monkeypatch, capsys):
    monkeypatch.setattr(readiness, "LAST_WORDS", 60)
    late = ("spark-2", {"transport": ["server", "Socket"]})
    early = ("spark-1", {"transport": ["server", "IB"]})
    assert followed(early, ("spark-1", ANSWER), late, ranks=("spark-1", "spark-2"), rdma="require") == 1
    assert "(spark-2)" in capsys.readouterr().err
