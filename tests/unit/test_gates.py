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
    for part in gates.parts(everything)[::2]:
        kept = Kept()
        marks = part.words[part.words.index("-m") :] if "-m" in part.words else []
        pytest.main(
            ["--collect-only", "-q", "--import-mode=importlib", f"--rootdir={tmp_path}", str(tmp_path), *marks],
            plugins=[kept],
        )
        ran.append(kept.names)
    assert ran[:2] == [several, one]


def test_each_file_of_tests_is_in_one_half():
    """A file that is new, or has another name, is run all the same."""
    here, apart = gates.parts(False)[:2]
    assert (here.apart, apart.apart) == (False, True)
    named = [word for word in apart.words if word.startswith("tests/")]
    assert named
    assert all((gates.ROOT / file).is_file() for file in named)
    assert [word for word in here.words if word.startswith(("tests/", "--ignore"))] == [
        "tests/e2e",
        "tests/faults",
        *(f"--ignore={file}" for file in named),
    ]
    assert [part.apart for part in gates.parts(False)[2:4]] == [False, True]


def test_the_last_part_is_the_rest():
    *_, folders, program, rest = gates.parts(False)
    named = [word for word in folders.words if word.startswith("tests/")]
    assert named[:2] == ["tests/engine", "tests/install"]
    assert all((gates.ROOT / file).exists() for file in [*named, *gates.ON_CLI])
    assert program.words == ["tests/program", "-m", "not long"]
    assert {word for word in rest.words if word.startswith("--ignore")} == {
        f"--ignore={path}" for path in ("tests/e2e", "tests/faults", "tests/program", "tests/real", *named)
    }
    assert [part for part in gates.parts(False) if part.covered] == [program, rest]
    assert "-m" not in gates.parts(True)[-1].words
