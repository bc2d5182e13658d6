"""Why a Spark could not be asked, in words that help."""

import subprocess
import sys

import pytest

from components.facts.spark import explain, parse
from components.remote.ask import ask, classify
from tests.unit.build import settings


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("nvidia@h: Permission denied (publickey).", "login"),
        ("Host key verification failed.", "host key"),
        ("ssh: connect to host h port 22: Connection refused", "unreachable"),
        ("ssh: connect to host h port 22: Connection timed out", "unreachable"),
        ("ssh: Could not resolve hostname spark: Name or service not known", "name"),
        ("bash: line 1: python3: command not found", "python"),
        ("something else", "other"),
    ],
)
def test_openssh_words_are_understood(stderr, kind):
    assert classify(stderr) == kind


@pytest.mark.parametrize("kind", ["login", "host key", "unreachable", "name", "python", "other"])
def test_every_kind_names_the_spark_and_a_remedy(kind):
    problem = explain(settings().nodes[1], settings(), kind, "ssh said so")
    assert problem.at == "spark-2 (nvidia@10.0.0.2:22)"
    assert problem.fix


def test_the_reason_of_a_failing_probe_is_its_last_line():
    argv = [sys.executable, "-c", "import sys; sys.exit('first\\nPermission denied')"]
    assert ask({"argv": argv, "stdin": ""}) == {"error": {"kind": "login", "detail": "Permission denied"}}


def test_every_spark_that_fails_is_reported():
    answers = {f"spark-{n}": {"error": {"kind": "login", "detail": "no"}} for n in (1, 2)}
    facts, problems = parse(answers, settings())
    assert facts == {}
    assert [problem.at.split()[0] for problem in problems] == ["spark-1", "spark-2"]


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "components.remote.ask"], input="[]", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "{}")
