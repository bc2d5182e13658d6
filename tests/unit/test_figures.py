"""Figures of ./spark measure: held to their aims, kept, and compared with the last run."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import chart, figures, report
from benchmarks.figures import Aim, Figure, Run

FAST = Figure("up", "up", (4.0, 5.0, 9.0), "the scripts", (10.0, 12.0), Aim("times", 0.5))


def run(*found, day=26, where="here", kind="full"):
    return Run(f"2026-11-{day}T20:00:00+00:00", where, list(found), kind)


def before(folder, *kept, **now):
    """What a run of now is compared with."""
    for one in kept:
        figures.keep(folder, one)
    return figures.former(folder, run(day=30, **now))


def test_a_figure_is_the_ratio_or_the_difference_of_medians():
    assert FAST.value == 5 / 11
    assert Figure("x", "x", (3.0,), "raw", (2.7,), Aim("at least times", 0.9)).value == 2.7 / 3.0
    assert Figure("x", "x", (3.5, 2.5), "empty", (1.0,), Aim("more", 1.3)).value == 2.0
    assert Figure("x", "x", (3.0,)).value is None


def test_what_an_aim_misses_is_said():
    slow = Figure("up", "up", (8.0,), "the scripts", (10.0,), Aim("times", 0.5))
    (met,), (missed,) = (figures.rows(run(one), {}) for one in (FAST, slow))
    assert met == ("up", "5.00 s (4.00 to 9.00)", "the scripts", "11.00 s (10.00 to 12.00)", "0.45", "≤ 0.5 ×", "met")
    assert missed[-3:] == ("0.80", "≤ 0.5 ×", "MISSED")


def test_a_copy_that_is_slower_than_its_aim_is_missed_though_the_number_is_smaller():
    copy = Figure("copy", "weights", (10.0,), "one raw stream", (8.0,), Aim("at least times", 0.9))
    assert figures.rows(run(copy), {})[0][-3:] == ("0.80", "≥ 0.9 ×", "MISSED")


def test_what_has_become_worse_since_the_last_run_is_said_and_what_has_not_is_not():
    slower = Figure("up", "up", (4.9,), "the scripts", (10.0,), Aim("times", 0.5))
    much_faster = Figure("up", "up", (3.0,), "the scripts", (10.0,), Aim("times", 0.5))

    def said(now, then):
        return figures.rows(run(now), {("up", "up"): then})[0][-1]

    assert said(slower, much_faster) == "met, worse: was 0.30"
    assert said(slower, FAST) == "met"
    assert said(much_faster, slower) == "met"


def test_a_figure_is_compared_with_the_newest_of_its_own_though_a_later_run_has_not_measured_it(tmp_path):
    older, newer = (Figure("up", "up", (seconds,), aim=Aim("value", 9.0)) for seconds in (3.0, 4.0))
    copy = Figure("copy", "weights", (10.0,))
    kept = run(older, day=24), run(newer, copy, day=25), run(copy, day=26)
    assert before(tmp_path, *kept) == {("up", "up"): newer, ("copy", "weights"): copy}


def test_runs_of_another_machine_are_not_compared(tmp_path):
    assert before(tmp_path, run(FAST, where="there")) == {}


def test_quick_runs_and_full_ones_are_not_compared(tmp_path):
    full = Figure("copy", "weights", (23.0,))
    quick = Figure("copy", "weights", (5.0,))
    kept = run(full, day=24), run(quick, day=25, kind="quick")
    assert before(tmp_path, *kept) == {("copy", "weights"): full}
    assert before(tmp_path, kind="quick") == {("copy", "weights"): quick}


def test_a_run_that_was_kept_before_there_were_kinds_is_read_and_compared_with_none(tmp_path):
    old = run(FAST, kind="").written()
    del old["kind"]
    assert figures.read(old) == run(FAST, kind="")
    assert before(tmp_path, figures.read(old)) == {}


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


def test_a_run_ends_with_what_has_become_worse_and_is_kept_and_drawn(tmp_path):
    said = io.StringIO()
    for day, seconds in ((25, 3.0), (26, 6.0)):
        made = run(Figure("up", "until an answer", (seconds,), aim=Aim("value", 9.0)), day=day)
        report.finish(made, tmp_path, Console(file=said, width=200))
    first, second = said.getvalue().split("kept as")[:2]
    assert "met" in first
    assert "worse" not in first
    assert "met, worse: was 3.00" in second
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".svg"]
