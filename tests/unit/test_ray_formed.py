"""A head of Ray that ended is started again by Docker: scripts/ray_formed.py, with a `docker` that says so."""

import os

import pytest

from tests.unit.home import STACK, Home

DOCKER = """#!/bin/sh
[ "$1" = logs ] && { echo "the head's log"; exit; }
echo asked >>"$HOME/asked"
{ read -r code; read -r words; } <<END
$(sed -n "$(wc -l <"$HOME/asked")p" "$HOME/answers" | tr '|' '\\n')
END
echo "$words" >&2
exit "$code"
"""


@pytest.fixture
def formed(tmp_path, monkeypatch):
    """Runs the script; each answer is what one look into the head's container brings."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    home = Home(tmp_path)
    assert home.lease("apply").returncode == 0

    def run(*answers, wait=30):
        (tmp_path / "answers").write_text("".join(f"{answer}\n" for answer in answers))
        done = home.step("ray_formed.py", "apply", stack=STACK, head="h", addresses=["10.0.0.1"], port=6379, wait=wait)
        return done, (tmp_path / "asked").read_text().count("asked")

    return run


def test_a_head_that_ended_and_is_started_again_is_waited_for(formed):
    done, looks = formed("1|Failed to register worker to Raylet: End of file", "0|2 Sparks in Ray")
    assert (done.returncode, looks) == (0, 2)


def test_a_spark_that_does_not_join_in_time_is_named_last(formed):
    done, looks = formed("3|after 270 s these Sparks have not joined Ray: 10.0.0.2")
    assert (done.returncode, looks) == (1, 1)
    assert done.stderr.splitlines()[-3::2] == [
        "the head's log",
        "after 270 s these Sparks have not joined Ray: 10.0.0.2",
    ]


def test_a_head_that_ends_again_and_again_is_given_up_in_time(formed):
    done, _ = formed(*["137|"] * 9, wait=1)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "exit code 137"
