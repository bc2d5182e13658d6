"""What CI prints last: how many tests passed and failed, whatever ran them at once."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SAID = """== tests
=========== 2 failed, 3 passed, 1 skipped, 4 deselected, 1 error in 3.42s ============
TOTAL 10 passed in words
============================= 40 passed, 2 warnings in 61.02s (0:01:01) ==============
"""


def ci(folder: Path, said: str, code: int) -> subprocess.CompletedProcess[str]:
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / "spark").write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\nexit {code}\n")
    (folder / "spark").chmod(0o755)
    return subprocess.run(["bash", folder / ".ci" / "run"], capture_output=True, text=True)


def test_the_closing_line_adds_up_what_every_pytest_said(tmp_path):
    done = ci(tmp_path, SAID, 1)
    assert done.stdout == SAID + "43 passed, 3 failed, 1 skipped\n"
    assert done.returncode == 1


def test_where_nothing_ran_it_says_so_and_keeps_the_exit_code(tmp_path):
    done = ci(tmp_path, "spark: ruff check failed\n", 7)
    assert done.stdout.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"
    assert done.returncode == 7
