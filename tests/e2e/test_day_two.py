"""What one does with a cluster that serves: look, ask, read, go inside, tidy up. One pair for all of it, and a key."""

from __future__ import annotations

import json

import pytest

from ops import check, cluster, look, prune
from ops.engine import CommandError
from ops.switch import Project
from simulator import sparks
from tests.e2e.conftest import Stack

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(simulated, tmp_path_factory):
    made = Stack(tmp_path_factory.mktemp("day"), "day", simulated[:2], engine="sglang")
    made("config", "set", "--secret", "apiKey", "let-me-in", "--stack", "day")
    try:
        made.up()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def where(stack):
    return cluster.of(Project(stack.folder, stack.environment), stack.name)


def test_status_shows_every_spark_and_the_endpoint(where, capsys):
    found = look.status(where)
    assert found["endpoint"]["state"] == "serving"
    assert {node: one["containers"][0]["state"] for node, one in found["sparks"].items()} == {
        "spark-1": "running",
        "spark-2": "running",
    }
    assert {one["lease"] for one in found["sparks"].values()} == {found["stack"]}
    look.show(found)
    text = capsys.readouterr().out
    assert "this stack" in text
    assert "Endpoint: serving, openai/gpt-oss-120b" in text


def test_logs_of_all_ranks_are_merged_and_can_be_chosen(where, capsys):
    look.logs(where, [], lines=200, follow=False, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["spark"] for line in lines} == {"spark-1", "spark-2"}
    assert any("The server is fired up" in line["line"] for line in lines)
    look.logs(where, ["spark-2", "server"], lines=200, follow=False)
    text = capsys.readouterr().out
    assert "spark-2 server | " in text
    assert "spark-1" not in text.replace("(spark-1", "")
    with pytest.raises(CommandError, match="has no Spark spark-9"):
        where.nodes(["spark-9"])


def test_a_shell_has_the_ranks_own_environment(where, capfd):
    assert look.shell(where, "spark-2", ["sh", "-c", "echo $NCCL_IB_HCA"]) == 0
    assert capfd.readouterr().out.strip() == "=rocep1s0f1,roceP2p1s0f1"
    assert look.shell(where, None, ["sh", "-c", "exit 3"]) == 3


def test_an_endpoint_that_does_all_it_should_passes_every_check(where, capsys):
    found = check.run(where)
    assert [result.name for result in found if not result.passed] == []
    assert {"tool call", "streaming", "every GPU works", "NCCL is on RDMA"} <= {result.name for result in found}
    assert check.show(found, as_json=True)
    assert json.loads(capsys.readouterr().out)["passed"]


def test_an_endpoint_that_is_gone_fails_the_checks_with_the_reason(where, stack, simulated):
    server, base = stack.container("server"), stack.outputs()["api_base"]
    sparks.on(simulated[0], f"docker pause {server}")
    try:
        assert look.endpoint(base, "x", "")["state"] == "unreachable"
    finally:
        sparks.on(simulated[0], f"docker unpause {server}")
    wrong = check.Api(base, "openai/gpt-oss-120b", "wrong-key")
    assert check.attempt("listed", wrong.listed).detail.startswith("401")


def test_what_no_stack_uses_is_pruned_and_what_one_uses_stays(where, simulated):
    old = "~/.cache/huggingface/hub/models--nobody--old/snapshots/abc"
    sparks.on(simulated[1], f"mkdir -p {old} && echo x > {old}/w")
    found = prune.unused(where, [])
    assert [row["repo"] for row in found["spark-2"] if row["repo"].startswith("nobody")] == ["nobody/old"]
    assert "openai/gpt-oss-120b" not in [row["repo"] for rows in found.values() for row in rows]
    prune.prune(where, ["nobody/old"], lambda _question: True, as_json=False, dry_run=False)
    assert "nobody" not in sparks.on(simulated[1], "ls ~/.cache/huggingface/hub")
    assert "openai--gpt-oss-120b" in sparks.on(simulated[1], "ls ~/.cache/huggingface/hub")
