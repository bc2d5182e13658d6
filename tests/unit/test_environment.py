"""Variables that a container's specification must not show, on their way into the engine's processes."""

import json
import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

import components.inside.environment as environment
from components.inside import mpi
from components.plan.values import RANK_KEY, SECRET_ENVIRONMENT
from tests.examples import some

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
"""What a variable can hold at all."""


@settings(max_examples=some(20), deadline=None)
@given(st.dictionaries(st.from_regex(r"X[A-Za-z0-9_]{0,8}", fullmatch=True), TEXT, max_size=3))
def test_a_command_gets_the_variables_of_the_file_as_they_are(tmp_path_factory, variables):
    file = tmp_path_factory.mktemp("held") / "environment"
    file.write_text(json.dumps(variables))
    shows = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k[0] == 'X'}))"
    done = subprocess.run(
        [sys.executable, environment.__file__, file, sys.executable, "-X", "utf8", "-c", shows],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert json.loads(done.stdout) == variables, done.stderr


def test_what_runs_in_containers_looks_where_the_plan_puts_things():
    assert (mpi.SECRET, mpi.SECRET_ENVIRONMENT) == (RANK_KEY, SECRET_ENVIRONMENT)


def test_a_rank_of_mpi_has_them_too(tmp_path, monkeypatch):
    held = tmp_path / "environment"
    held.write_text(json.dumps({"TOKEN": "“tok”\n"}))
    monkeypatch.setattr(mpi, "SECRET_ENVIRONMENT", str(held))
    containers = tmp_path / "environ"
    containers.write_bytes(b"NCCL_IB_GID_INDEX=5\0TOKEN=shown\0")
    monkeypatch.setattr(mpi, "ENVIRONMENT", str(containers))
    started = []
    monkeypatch.setattr(os, "execvpe", lambda *words: started.append(words))
    mpi.rank(["serve", "-x"])
    ((program, words, variables),) = started
    assert (program, words) == ("serve", ["serve", "-x"])
    assert (variables[b"NCCL_IB_GID_INDEX"], variables[b"TOKEN"]) == (b"5", "“tok”\n".encode())
