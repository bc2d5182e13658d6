"""`./spark logs`: what it shows of Sparks that answer, and how it ends where some do not."""

import os
from types import SimpleNamespace

import pytest

from ops import look
from ops.pulumi import CommandError
from tests.unit.build import settings


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two Sparks; `ssh` to each does as the file of that name says."""
    fake = tmp_path / "ssh"
    fake.write_text(
        f"#!/bin/sh\ncat >/dev/null\nfor word; do case $word in *@10.0.0.*) . {tmp_path}/${{word#*@}};; esac; done\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    chosen = settings()

    def make(*does):
        for node, words in zip(chosen.nodes, does, strict=True):
            (tmp_path / node.host).write_text(words)
        return SimpleNamespace(settings=chosen, identity="o/p/s", nodes=lambda names: list(chosen.nodes))

    return make


SAYS = """echo '["server", "INFO fine"]'"""


def test_logs_of_all_ranks_are_merged_and_a_line_that_is_none_of_a_container_is_shown_too(cluster, capsys):
    look.logs(cluster(SAYS, f"echo Welcome; echo 42; {SAYS}"), [], lines=1, follow=False, as_json=True)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        '{"spark": "spark-1", "component": "server", "line": "INFO fine"}',
        '{"spark": "spark-2", "component": "", "line": "42"}',
        '{"spark": "spark-2", "component": "", "line": "Welcome"}',
        '{"spark": "spark-2", "component": "server", "line": "INFO fine"}',
    ]


@pytest.mark.parametrize(
    ("does", "named"), [(("exit 255", "exit 255"), "spark-1, spark-2"), ((SAYS, "exit 1"), "spark-2")]
)
def test_logs_that_could_not_be_had_are_an_error_that_names_the_sparks(cluster, does, named):
    with pytest.raises(CommandError, match=f"^{named}: the logs are not to be had"):
        look.logs(cluster(*does), [], lines=1, follow=False)


def test_the_pages_beside_an_endpoint_are_those_that_there_are():
    chat = "http://192.168.1.11:8080"
    assert look.pages({"beside": {"chat": chat}, "dashboard": None}) == {"chat": chat}
    assert look.pages({"dashboard": "http://127.0.0.1:8265"}) == {"Ray's dashboard": "http://127.0.0.1:8265"}
    assert look.pages({}) == {}
