"""A journey that fails names its step (tests/e2e/steps.py), in pytest's last lines too."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SUITE = """from tests.e2e.steps import step

def test_journey():
    step("one comes")
    step("the other comes too")
    assert 1 == 2

def test_another():
    assert 3 == 4
"""


def test_the_step_is_named_in_the_summary_and_none_is_carried_over(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.e2e.steps", "-p", "no:cacheprovider", "-c", "/dev/null"]
    env = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run([*argv, f"--rootdir={tmp_path}", tmp_path], cwd=ROOT, env=env, capture_output=True, text=True)
    *_, first, second, _ = done.stdout.splitlines()
    assert first.endswith("::test_journey - at the step “the other comes too”: assert 1 == 2")
    assert second.endswith("::test_another - assert 3 == 4")
