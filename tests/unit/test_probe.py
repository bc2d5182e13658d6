"""Why a Spark could not be asked, in words that help."""

import json
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from components.facts.failure import Failure
from components.facts.spark import NodeFacts, explain, parse
from components.remote import ask, parcel
from components.remote.ask import classify, opened, read
from components.scripts.contracts import Facts
from tests.unit.build import facts, settings


@pytest.mark.parametrize(
    ("code", "stderr", "kind"),
    [
        (255, "nvidia@h: Permission denied (publickey).", "login"),
        (255, "Host key verification failed.", "host key"),
        (255, "ssh: connect to host h port 22: Connection refused", "unreachable"),
        (255, "ssh: connect to host h port 22: Connection timed out", "unreachable"),
        (255, "ssh: Could not resolve hostname spark: Name or service not known", "name"),
        (255, "something else", "other"),
        # The command's own words, which ssh's may not be mistaken for.
        (1, "PermissionError: [Errno 13] Permission denied: '/x'", "other"),
        (1, "docker pull: dial tcp: connection timed out", "other"),
        (127, "bash: line 1: python3: command not found", "python"),
        (127, "timeout: failed to run command 'python3': No such file or directory", "python"),
        (127, "zsh:1: command not found: python3", "python"),
        (124, "", "slow"),
        (1, "sudo: a password is required", "sudo"),
        (1, "sudo: a terminal is required to read the password\nsudo: Ein Passwort ist notwendig", "sudo"),
        (1, "sudo: unable to resolve host spark-1\nnetplan apply: bad", "other"),
    ],
)
def test_who_failed_is_told_by_the_exit_code_and_then_by_the_words(code, stderr, kind):
    assert classify(code, stderr) == kind


@pytest.mark.parametrize("kind", Failure)
def test_every_kind_names_the_spark_and_a_remedy(kind):
    problem = explain(settings().nodes[1], settings(), kind, "ssh said so")
    assert problem.at == "spark-2 (nvidia@10.0.0.2:22)"
    assert problem.fix


def test_the_reason_of_a_failing_probe_is_its_last_line():
    argv = [sys.executable, "-c", "import sys; print('first\\nPermission denied', file=sys.stderr); sys.exit(255)"]
    assert ask.answer(opened(argv), "") == {"error": {"kind": "login", "detail": "Permission denied"}}


CHANGED = """@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@
The fingerprint for the ED25519 key sent by the remote host is
SHA256:9ulMqrCAPFBC1ttyUZbQQqvEOgBdL0pTzSiGZ4eEkbA.
Please contact your system administrator.
Host key verification failed.
"""


PINNED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL3bl9sYHTSwjQgYvQ0vBX1uJ6qZyq2l4X0V1n0m3Q9c"


def test_another_host_key_is_refused_with_both_fingerprints():
    argv = [sys.executable, "-c", f"import sys; print({CHANGED!r}, file=sys.stderr); sys.exit(255)"]
    answer = ask.answer(opened(argv), "")
    shown = "SHA256:9ulMqrCAPFBC1ttyUZbQQqvEOgBdL0pTzSiGZ4eEkbA"
    assert answer == {"error": {"kind": "host key", "detail": shown}}
    given = settings(ssh={"hostKeys": {"spark-1": PINNED, "spark-2": PINNED}})
    problem = explain(given.nodes[0], given, Failure.HOST_KEY, shown)
    listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=PINNED, capture_output=True, text=True).stdout.split()[1]
    assert f"pinned is {listed}, and it shows {shown}" in problem.wrong


def shell(text):
    """A login shell that does this with a command, and has python3."""
    return ["sh", "-c", text.replace("COMMAND", parcel.command("probe.py", "apply", limit=20).replace("%", "%%"))]


def answer(monkeypatch, tmp_path, text):
    """Of a script that prints some JSON."""
    (tmp_path / "probe.py").write_text("import json, sys\nprint(json.dumps(json.load(sys.stdin)))")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text("")
    monkeypatch.setattr(parcel, "FOLDER", tmp_path)
    return ask.answer(opened(shell(text)), parcel.asking("probe.py", {"a": "ä <"}))


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("COMMAND", ""),
        ("echo Welcome to {DGX} Spark; COMMAND", "Welcome to {DGX} Spark"),
        ("COMMAND; echo; echo bye", "bye"),
        ("printf '\\033[1mhi {'; COMMAND; echo ']'", "\x1b[1mhi { ]"),
    ],
)
def test_an_answer_is_told_from_what_a_login_shell_prints(monkeypatch, tmp_path, text, noise):
    assert answer(monkeypatch, tmp_path, text) == {"facts": {"a": "ä <"}, "noise": noise}


@given(st.text(), st.text(), st.dictionaries(st.text(), st.integers() | st.text()))
def test_whatever_is_around_an_answer_it_is_found(before, after, facts):
    marks = (parcel.BEGIN, parcel.END)
    assume(not any(mark in before + after for mark in marks))
    text = f"{before}{parcel.BEGIN}\n{json.dumps(facts)}\n{parcel.END}{after}"
    assert read(text)["facts"] == facts


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("cat >/dev/null", ""),
        ("cat >/dev/null; echo Only git here", "Only git here"),
        (f"cat >/dev/null; echo '{parcel.BEGIN} half", f"{parcel.BEGIN} half"),
    ],
)
def test_no_answer_is_the_problem_of_that_spark_alone(monkeypatch, tmp_path, text, detail):
    text = text if text.count("'") % 2 == 0 else f"{text}'"
    assert answer(monkeypatch, tmp_path, text) == {"error": {"kind": "answer", "detail": detail}}


def test_an_account_that_may_not_log_in_says_so(monkeypatch, tmp_path):
    told = answer(monkeypatch, tmp_path, "echo This account is currently not available.; exit 1")
    assert told["error"]["detail"] == "This account is currently not available."


def test_a_shell_that_prints_is_refused_because_docker_can_not_bear_it():
    values = facts(1).model_dump()
    values["model_config"] = values.pop("model_config_")
    answers = {"spark-1": {"facts": values, "noise": "Welcome!"}, "spark-2": {"facts": values, "noise": ""}}
    known, (problem,) = parse(answers, settings())
    assert list(known) == ["spark-1", "spark-2"]
    assert (problem.at, "'Welcome!'" in problem.wrong) == ("spark-1", True)
    assert "~/.bashrc" in problem.fix


def test_every_spark_that_fails_is_reported():
    answers = {f"spark-{n}": {"error": {"kind": "login", "detail": "no"}} for n in (1, 2)}
    known, problems = parse(answers, settings())
    assert known == {}
    assert [problem.at.split()[0] for problem in problems] == ["spark-1", "spark-2"]


def test_each_answers_its_own_question(monkeypatch):
    script = "import sys; print(sys.argv[1] + sys.stdin.read())"
    lines = {name: opened([sys.executable, "-c", script, name]) for name in ("spark-1", "spark-2")}
    monkeypatch.setattr(ask, "read", lambda stdout: {"facts": stdout})
    assert ask.ask(lines, {"spark-1": " a", "spark-2": " b"}) == {
        "spark-1": {"facts": "spark-1 a\n"},
        "spark-2": {"facts": "spark-2 b\n"},
    }


def test_without_ssh_each_spark_says_so(tmp_path):
    assert ask.answer(opened([str(tmp_path / "ssh")]), "")["error"]["kind"] == "no ssh"


@pytest.mark.parametrize("stays", [False, True])
def test_a_spark_that_stays_silent_is_left(stays):
    line = opened([sys.executable, "-c", "import signal; signal.pause()"])
    silent = ask.answer(line, "", limit=0, stays=stays)
    assert (silent["error"]["kind"], line.poll() is None) == ("unreachable", False)


def test_what_the_probe_answers_and_what_is_read_of_it_have_the_same_names():
    read = {"model_config" if name == "model_config_" else name for name in NodeFacts.model_fields}
    assert set(Facts.__annotations__) == read
