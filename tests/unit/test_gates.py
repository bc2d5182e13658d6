"""Which tests `./spark test` and `./spark test --all` run, and in which of the parts that run at once."""

import pytest

from ops import gates

SUITE = """import pytest

def test_of_two(): pass

@pytest.mark.alone
def test_of_one(): pass

@pytest.mark.long
def test_of_two_for_long(): pass

@pytest.mark.alone
@pytest.mark.long
def test_of_one_for_long(): pass
"""


class Kept:
    """A plugin that keeps the names of the tests which pytest would run."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = [item.name for item in session.items]


@pytest.mark.parametrize(
    ("everything", "several", "one"),
    [
        (False, ["test_of_two"], ["test_of_one"]),
        (True, ["test_of_two", "test_of_two_for_long"], ["test_of_one", "test_of_one_for_long"]),
    ],
)
def test_long_tests_run_with_all_alone_and_each_test_in_one_part(everything, several, one, tmp_path, capsys):
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n  long\n")
    ran = []
    for _, *words in gates.parts(everything)[:2]:
        kept = Kept()
        pytest.main(
            ["--collect-only", "-q", "--import-mode=importlib", f"--rootdir={tmp_path}", str(tmp_path), *words],
            plugins=[kept],
        )
        ran.append(kept.names)
    assert ran == [several, one]


def test_the_third_part_is_the_rest():
    assert [part[0] for part in gates.parts(True)] == ["tests/e2e", "tests/e2e", "--ignore=tests/e2e"]
    assert ["-m" in part for part in gates.parts(True)] == [True, True, False]
    assert gates.parts(False)[2] == ["--ignore=tests/e2e", "-m", "not long"]
