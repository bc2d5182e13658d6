"""`./spark` says its own name and explains every word; what Pulumi is told through it arrives unchanged."""

import sys

import pytest

from ops import __main__ as spark
from ops import pulumi
from tests.install.command_lines import commands

EVERY = dict(commands(spark.app))
PULUMIS = [("preview",), ("up",), ("config",), ("stack",), ("cancel",)]
PASSING_ON = {("test",), ("engine",), *PULUMIS}
"""What they don't know goes on to pytest or Pulumi."""


def typed(monkeypatch, *words: str) -> int:
    """`./spark WORDS`; its exit code."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/ops/__main__.py", *words])
    with pytest.raises(SystemExit) as end:
        spark.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_begins_with_what_people_type(path, monkeypatch, capsys):
    assert typed(monkeypatch, *path, "--help") == 0
    assert f"Usage: {' '.join(('./spark', *path))} " in capsys.readouterr().out


@pytest.mark.parametrize("path", [path for path in EVERY if path not in PASSING_ON], ids=" ".join)
def test_errors_name_what_people_type(path, monkeypatch, capsys):
    assert typed(monkeypatch, *path, "--no-such-option") == 2
    said = capsys.readouterr().err
    assert f"Usage: {' '.join(('./spark', *path))} " in said
    assert f"Try '{' '.join(('./spark', *path))} --help'" in said


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_option_and_argument_is_explained(path):
    assert EVERY[path].help
    assert [parameter.name for parameter in EVERY[path].params if not parameter.help] == []


def test_what_stands_behind_two_hyphens_reaches_pulumi_with_them(monkeypatch):
    given = []
    monkeypatch.setattr(pulumi, "passthrough", lambda words: given.extend(words) or 3)
    words = ["config", "set", "--path", "serving.extraArgs[0]", "--", "--max-num-seqs=16"]
    assert typed(monkeypatch, "engine", *words) == 3
    assert given == words


@pytest.mark.parametrize("path", PULUMIS, ids=" ".join)
def test_pulumis_own_commands_are_passed_on_as_they_are_typed(path, monkeypatch):
    given = []
    monkeypatch.setattr(spark, "pass_on", lambda words: given.extend(words) or 3)
    assert typed(monkeypatch, *path, "--stack", "x", "--", "--help") == 3
    assert given == [*path, "--stack", "x", "--", "--help"]
