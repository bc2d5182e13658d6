"""What one does with a cluster that serves: look, ask, read, go inside, tidy up. One pair for all of it, and a key."""

from __future__ import annotations

import json

import pytest
import requests

from ops import bench, check, doctor, look, prune
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import of
from simulator import network, sparks
from tests.e2e.conftest import Stack, step

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
    return of(Project(stack.folder, stack.environment), stack.name)


def test_status_shows_every_spark_and_the_endpoint(where, capsys):
    found = look.status(where)
    assert found["endpoint"]["state"] == "serving"
    assert {node: one["containers"][0]["state"] for node, one in found["sparks"].items()} == {
        "spark-1": "running",
        "spark-2": "running",
    }
    assert {one["lease"] for one in found["sparks"].values()} == {found["stack"]}
    startup = found["endpoint"]["startup"]
    assert 0 <= startup["port"] <= startup["health"] <= startup["answer"]
    look.show(found)
    text = capsys.readouterr().out
    assert "this stack" in text
    assert f"first answer after {startup['answer']} s" in text
    assert "Endpoint: serving, openai/gpt-oss-120b" in text


def test_logs_of_all_ranks_are_merged_and_can_be_chosen(where, capsys):
    step("all logs, for a program")
    look.logs(where, [], lines=200, follow=False, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["spark"] for line in lines} == {"spark-1", "spark-2"}
    assert any("The server is fired up" in line["line"] for line in lines)

    step("one component of one Spark, for a person")
    look.logs(where, ["spark-2", "server"], lines=200, follow=False)
    text = capsys.readouterr().out
    assert "spark-2 server | " in text
    assert "spark-1" not in text.replace("(spark-1", "")

    step("a Spark that there is not")
    with pytest.raises(CommandError, match="has no Spark spark-9"):
        where.nodes(["spark-9"])


def test_a_shell_has_the_ranks_own_environment(where, capfd):
    assert look.shell(where, "spark-2", ["sh", "-c", "echo $NCCL_IB_HCA"]) == 0
    assert capfd.readouterr().out.strip() == "=rocep1s0f1,roceP2p1s0f1"
    assert look.shell(where, None, ["sh", "-c", "exit 3"]) == 3


def test_the_key_is_asked_for_and_shows_nowhere(stack, simulated):
    base = stack.outputs()["api_base"]
    assert base.endswith(":30000/v1")
    assert requests.get(f"{base}/models", timeout=5).status_code == 401
    headers = {"Authorization": "Bearer let-me-in"}
    assert requests.get(f"{base}/models", headers=headers, timeout=5).status_code == 200
    for spark in simulated[:2]:
        assert "let-me-in" not in sparks.on(spark, f"docker inspect {stack.container('server')}; ps axww")
    assert "let-me-in" not in stack("stack", "export", "--stack", stack.name).text


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


def states(findings):
    return {(one.spark, one.check): one for one in findings if one.state in ("warning", "FAILED")}


def test_doctor_finds_nothing_on_healthy_sparks_and_its_report_has_no_secret(where, tmp_path, capsys):
    step("every check passes")
    findings, about = doctor.examine(where, texts=True)
    assert [one for one in findings if one.state == "FAILED"] == []
    checked = {one.check for one in findings}
    assert {"SSH", "Docker", "GPU", "disk", "memory", "lease", "weights", "memlock", "cache", "clock"} <= checked
    assert {"driver", "image", "link", "peer", "firewall"} <= checked
    link = "enp1s0f1np1 192.168.177.12/24, MTU 9000, rocep1s0f1, roceP2p1s0f1, GID 3"
    assert doctor.Finding("spark-2", "link", "ok", link) in findings
    assert doctor.show(findings, as_json=False)
    assert "spark-2 answers, with 9000 bytes too" in " ".join(capsys.readouterr().out.split())

    step("the report to send away")
    doctor.write(tmp_path / "report.json", findings, about)
    text = (tmp_path / "report.json").read_text()
    assert "let-me-in" not in text
    assert "PRIVATE KEY" not in text
    assert "NVIDIA-SMI 580.95.05" in text


def test_doctor_names_what_is_wrong_and_the_remedy(where, simulated):
    second = simulated[1]

    step("a firewall, a file of root in the cache, and one as huggingface_hub keeps what is shared")
    filtered = ["iptables", "-A", "INPUT", "-i", "enp1s0f1np1", "-p", "tcp", "--dport", "50000", "-j", "DROP"]
    mine, shared = "~/.cache/huggingface/of-root", "~/.cache/huggingface/shared-blob"
    sparks.inside(second, *filtered)
    sparks.on(second, f"sudo touch {mine} && sudo chmod 600 {mine} && touch {shared} && chmod 444 {shared}")
    try:
        findings, _ = doctor.examine(where)
        found = states(findings)
        assert found["spark-1", "firewall"].detail == "spark-2 lets nothing through to port 50000"
        assert "sudo chown -R nvidia /home/nvidia/.cache/huggingface" in found["spark-2", "cache"].fix
        assert "of-root" in found["spark-2", "cache"].detail
        assert "shared-blob" not in found["spark-2", "cache"].detail
        assert not doctor.show(findings, as_json=True)
    finally:
        sparks.inside(second, *[word.replace("-A", "-D") for word in filtered])
        sparks.on(second, f"sudo rm -f {mine} {shared}")

    step("a smaller MTU on one end")
    network.cable(second, port=1, mtu=1500)
    try:
        found = states(doctor.examine(where)[0])
        assert "the MTU differs: spark-1 9000, spark-2 1500" in found["fabric", "link"].detail
        assert "spark-2 answers, but not to packets of 9000 bytes" in found["spark-1", "peer"].detail
    finally:
        network.cable(second, port=1)


def test_what_no_stack_uses_is_pruned_and_what_one_uses_stays(where, simulated):
    step("listed: what no stack uses")
    old = "~/.cache/huggingface/hub/models--nobody--old/snapshots/abc"
    sparks.on(simulated[1], f"mkdir -p {old} && echo x > {old}/w")
    found = prune.unused(where, [])
    assert [row["repo"] for row in found["spark-2"]["revisions"] if row["repo"].startswith("nobody")] == ["nobody/old"]
    assert "openai/gpt-oss-120b" not in [
        row["repo"] for rows in found.values() for row in (*rows["revisions"], *rows["compiled"])
    ]

    step("confirmed: it goes, and the rest stays")
    prune.prune(where, ["nobody/old"], lambda _question: True, as_json=False, dry_run=False)
    assert "nobody" not in sparks.on(simulated[1], "ls ~/.cache/huggingface/hub")
    assert "openai--gpt-oss-120b" in sparks.on(simulated[1], "ls ~/.cache/huggingface/hub")


@pytest.mark.long  # installs AIPerf, a gigabyte
def test_a_measurement_is_kept_and_compared_with_the_last_one_of_the_same_configuration(
    where, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)

    step("a first measurement")
    profile = bench.chosen(None, prompts=6, input=100, output=16, concurrency=3)
    first = bench.run(where, profile)
    assert (first.requests, first.failed, first.output_tokens) == (6, 0, 16)
    assert first.input_tokens == pytest.approx(100, abs=2)
    assert first.ttft_ms.p99 >= first.ttft_ms.p50 > 0
    assert bench.former(first) is None

    step("a second one of the same configuration")
    second = bench.run(where, profile)
    assert bench.former(second) == first
    assert bench.former(bench.replace(second, configuration="another")) is None

    step("shown beside the last")
    bench.show(second, first, as_json=False)
    assert "last time" in capsys.readouterr().out

    step("kept, without a secret")
    assert len((tmp_path / "day" / "results.csv").read_text().splitlines()) == 3
    kept = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert "let-me-in" not in kept
