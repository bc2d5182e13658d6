"""Figures of ./spark measure: held to their aims, kept, and compared with the last run."""

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import chart, figures
from benchmarks.figures import Aim, Figure, Run

FAST = Figure("up", "up", (4.0, 5.0, 9.0), "the scripts", (10.0, 12.0), Aim("times", 0.5))


def run(*found, when="2026-11-26T20:00:00+00:00", where="here"):
    return Run(when, where, list(found))


def test_a_figure_is_the_ratio_or_the_difference_of_medians():
    assert FAST.value == 5 / 11
    assert Figure("x", "x", (3.0,), "raw", (2.7,), Aim("at least times", 0.9)).value == 2.7 / 3.0
    assert Figure("x", "x", (3.5, 2.5), "empty", (1.0,), Aim("more", 1.3)).value == 2.0
    assert Figure("x", "x", (3.0,)).value is None


def test_what_an_aim_misses_is_said():
    slow = Figure("up", "up", (8.0,), "the scripts", (10.0,), Aim("times", 0.5))
    (met,), (missed,) = (figures.rows(run(one), None) for one in (FAST, slow))
    assert met == ("up", "5.00 s (4.00 to 9.00)", "the scripts", "11.00 s (10.00 to 12.00)", "0.45", "≤ 0.5 ×", "met")
    assert missed[-3:] == ("0.80", "≤ 0.5 ×", "MISSED")


def test_a_copy_that_is_slower_than_its_aim_is_missed_though_the_number_is_smaller():
    copy = Figure("copy", "weights", (10.0,), "one raw stream", (8.0,), Aim("at least times", 0.9))
    assert figures.rows(run(copy), None)[0][-3:] == ("0.80", "≥ 0.9 ×", "MISSED")


def test_what_has_become_worse_since_the_last_run_is_said_and_what_has_not_is_not():
    slower = Figure("up", "up", (4.9,), "the scripts", (10.0,), Aim("times", 0.5))
    much_faster = Figure("up", "up", (3.0,), "the scripts", (10.0,), Aim("times", 0.5))
    assert figures.rows(run(slower), run(much_faster))[0][-1] == "met, worse: was 0.30"
    assert figures.rows(run(slower), run(FAST))[0][-1] == "met"
    assert figures.rows(run(much_faster), run(slower))[0][-1] == "met"


def test_runs_of_another_machine_are_not_compared(tmp_path):
    here, there = run(FAST), run(FAST, when="2026-11-27T20:00:00+00:00", where="there")
    for one in (here, there):
        figures.keep(tmp_path, one)
    assert figures.last(tmp_path, "here") == here
    assert figures.last(tmp_path, "nowhere") is None


finite = st.lists(st.floats(0.01, 1000), min_size=1, max_size=5).map(tuple)


@given(finite, finite, st.sampled_from(["times", "at least times", "more", "value"]), st.floats(0.1, 10))
def test_a_run_is_read_as_it_was_kept(ours, theirs, kind, limit):
    kept = run(Figure("g", "n", ours, "a", theirs, Aim(kind, limit)))
    assert figures.read(kept.written()) == kept


def test_each_group_has_a_picture_that_asks_nobody_for_a_font(tmp_path):
    made = run(FAST, Figure("copy", "weights", (10.0,), "one raw stream", (9.0,)))
    assert [path.name for path in chart.keep(tmp_path, made)] == [f"{FAST.group}.svg", "copy.svg"]
    drawn = (tmp_path / "copy.svg").read_text()
    assert "weights" in drawn
    assert "one&#160;raw&#160;stream" in drawn
    assert "@font-face" not in drawn
