"""`./spark` says its own name and explains every word; what Pulumi is told through it arrives unchanged; what is wrong
with a stack's files is said in words."""

import json
import shutil
import sys

import pytest

from components.remote import ask
from ops import __main__ as spark
from ops import models, project, pulumi
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with the stacks `mine` and `other`, of which neither has a file; no Pulumi and no Spark is asked."""
    shutil.copy(project.ROOT / "Pulumi.yaml", tmp_path)
    stacks = json.dumps([{"name": name, "current": name == "mine"} for name in ("mine", "other")])
    monkeypatch.setattr(pulumi, "fetch", lambda say: True)
    monkeypatch.setattr(pulumi, "output", lambda words, *_: stacks if words[:2] == ["stack", "ls"] else "")
    monkeypatch.setattr(ask, "dial", lambda settings: {})
    for module in (project, models):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


NODES = (
    "config:\n"
    "  dgx-spark:nodes: [{name: spark-1, host: 10.0.0.1}]\n"
    "  dgx-spark:ssh: {hostKeys: {spark-1: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1}}\n"
)


@pytest.mark.parametrize("command", ["doctor", "destroy", "setup-network"])
@pytest.mark.parametrize(
    ("catalog", "said"), [(None, "No such file or directory"), ("models: [", "is no YAML with a list `models`")]
)
def test_a_catalog_that_can_not_be_read_is_named(command, catalog, said, folder, monkeypatch, capsys):
    own = folder / "own.yaml"
    if catalog is not None:
        own.write_text(catalog)
    (folder / "Pulumi.mine.yaml").write_text(f"{NODES}  dgx-spark:catalog: {own}\n")
    assert typed(monkeypatch, command, "--stack", "mine") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("spark: 1 thing needs attention before anything is changed\n  catalog: ")
    assert f"{own}" in shown
    assert said in shown
    assert "\n    → " in shown


@pytest.mark.parametrize("words", [["status"], ["models"], ["switch", "--list"]], ids=" ".join)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{NODES}  dgx-spark:serving: {{port: 8000\n", ", line 5: expected ',' or '}', but got '<stream end>'"),
        (f"{NODES}  dgx-spark:engine: vllm\n dgx-spark:model: x\n", ", line 5: expected <block end>, but found"),
        (f"{NODES}  dgx-spark:chat: \t@\n", ", line 4: found character '\\t' that cannot start any token"),
        ("- dgx-spark:engine: vllm\n", " has no settings below a line `config:`"),
        ("config:\n- dgx-spark:engine: vllm\n", " has no settings below a line `config:`"),
    ],
    ids=["not closed", "indented otherwise", "a tab", "a list", "a list of settings"],
)
def test_a_slip_in_a_stacks_file_is_shown_where_it_is(words, text, said, folder, monkeypatch, capsys):
    (folder / "Pulumi.mine.yaml").write_text(text)
    assert typed(monkeypatch, *words, "--stack", "mine") == 1
    assert capsys.readouterr().err.startswith(f"spark: {folder / 'Pulumi.mine.yaml'}{said}")


@pytest.mark.parametrize("words", [["switch", "other"], ["rollback", "--stack", "other"]], ids=" ".join)
def test_a_stack_without_a_file_here_is_named(words, folder, monkeypatch, capsys):
    (folder / "Pulumi.mine.yaml").write_text(NODES)
    assert typed(monkeypatch, *words) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"spark: there is no {folder / 'Pulumi.other.yaml'}: ")
    assert "pulumi config refresh --stack other" in shown
