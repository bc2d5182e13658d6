"""docs/trust.md: what becomes of the trials of faults."""

import json
import subprocess

import pytest

from ops import faults, trust
from ops.pulumi import CommandError


def line(fault, trial, right, seconds, module="test_engine"):
    return {"module": module, "fault": fault, "trial": trial, "right": right, "seconds": seconds}


def test_trials_are_counted_and_shown_and_what_was_not_run_keeps_its_count(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "COUNTS", tmp_path)
    faults.keep([line("killed", f"test[{n}]", True, seconds) for n, seconds in enumerate((4.0, 30.04, 6.0))])
    faults.keep([line("cut", "test[0]", False, 9.0), line("dark", "test[0]", True, 61.0, "test_power")])
    rows = faults.table().splitlines()[-3:]
    assert rows == ["| killed | 3 | 3 | 6, 30 |", "| cut | 1 | 0 |  |", "| dark | 1 | 1 | 61, 61 |"]
    faults.keep([line("killed", "test[0]", False, 5.0), line("killed", "test[1]", True, 7.0)])
    assert faults.table().splitlines()[-3] == "| killed | 2 | 1 | 7, 7 |"


def test_a_shorter_run_in_which_all_ended_right_takes_no_trial_away(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "COUNTS", tmp_path)
    faults.keep([line("killed", f"test[{n}]", True, 4.0) for n in range(3)])
    faults.keep([line("killed", "test[0]", True, 9.0)])
    assert faults.table().splitlines()[-1] == "| killed | 3 | 3 | 4, 4 |"


def test_a_trial_that_ends_right_and_can_not_be_cleared_up_has_failed():
    once = [line("killed", "test[0]", True, 3.0), line("killed", "test[0]", False, 3.0)]
    for lines in (once, once[::-1]):
        assert faults.counted(lines) == {"test_engine": {"killed": {"trials": 1, "right": 0, "seconds": []}}}


def test_the_page_has_the_faults_as_they_were_counted_and_each_of_them_has_a_test():
    assert faults.table() in trust.FILE.read_text(), "run ./spark docs"
    for path in faults.COUNTS.glob("*.json"):
        source = (faults.TESTS / f"{path.stem}.py").read_text()
        for fault in json.loads(path.read_text()):
            assert f'"{fault}"' in source, f"{path}: no test has it any more"


CASE = '<testcase classname="tests.b" name="test_two[{}]"/>'


def test_the_properties_of_a_word_are_run_whole_and_all_others_keep_their_numbers(tmp_path, monkeypatch):
    first = trust.Property("first holds", ("tests/a.py",))
    second = trust.Property("second holds", ("tests/b.py::test_two", "tests/c.py::test_three"), simulated=True)
    monkeypatch.setattr(trust, "PROPERTIES", (first, second))
    monkeypatch.setattr(trust, "FILE", tmp_path / "trust.md")
    trust.FILE.write_text(trust.text({"tests/a.py::test_one": 1}))
    ran = []

    def run(argv, **ignored):
        ran.extend(word for word in argv if word.startswith("tests/"))
        (junit,) = (word.partition("=")[2] for word in argv if word.startswith("--junitxml="))
        with open(junit, "w") as file:
            file.write(f"<testsuite>{CASE.format(1)}{CASE.format(2)}</testsuite>")
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(subprocess, "run", run)
    trust.write_properties("two")
    assert ran == ["tests/b.py::test_two", "tests/c.py::test_three"]
    page = trust.FILE.read_text()
    assert "| first holds | `tests/a.py` | 1 |" in page
    assert "| second holds | `tests/b.py`, `tests/c.py` | 2 |" in page
    with pytest.raises(CommandError, match="no test of a property has four in its name"):
        trust.write_properties("four")
