"""What the README tells people to type is what the command lines take, and its lines on config do what they say."""

import subprocess
from pathlib import Path

import pytest
import yaml

from components.settings import load
from ops import __main__ as spark
from ops import pulumi
from ops.project import Project
from ops.stack import raw
from simulator.engine import cli as engine
from simulator.engine.project import Project as Declared
from simulator.engine.project import StackFile
from tests.install.command_lines import parse, told

ROOT = Path(__file__).parent.parent.parent
TOLD = told((ROOT / "README.md").read_text())
TOOLS = {"./spark": spark.app, "pulumi": engine.app}
STACK = "head-worker"


@pytest.mark.parametrize("words", TOLD, ids=" ".join)
def test_the_command_line_takes_it(words):
    tool, *rest = words
    parse(TOOLS[tool], rest)


def test_commands_are_found_in_blocks_and_in_running_text():
    text = "Run `./spark a`, or:\n\n    pulumi set --path 'x[0]' -- --y=1 && pulumi up   # so\n"
    assert told(text) == [["pulumi", "set", "--path", "x[0]", "--", "--y=1"], ["pulumi", "up"], ["./spark", "a"]]
    assert len(TOLD) > 30


@pytest.fixture
def folder(tmp_path):
    """The program with its example stack, and a state of its own."""
    for name in ("Pulumi.yaml", f"Pulumi.{STACK}.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("__main__.py", "components"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = pulumi.environment(folder / "state")
    return subprocess.run(
        [*pulumi.chosen().argv, *words], env=env, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_its_lines_on_config_set_what_they_say(folder):
    lines = [words[1:] for words in TOLD if words[0] == "pulumi" and words[1] in ("stack", "config")]
    for words in lines:
        if words[:2] != ["stack", "output"]:  # there is none before the first `up`
            done = run(folder, *words)
            assert done.returncode == 0, (words, done.stderr)
    made = load(raw(Project(folder, {}), STACK))
    assert (made.model, made.engine, made.monitoring) == ("gpt-oss-20b", "sglang", True)
    assert (made.serving.max_model_len, made.serving.extra_args) == (65536, ("--max-num-seqs=16",))
    stored = yaml.safe_load((folder / f"Pulumi.{STACK}.yaml").read_text())["config"]
    assert [list(stored[f"dgx-spark:{key}"]) for key in ("hfToken", "apiKey")] == [["secure"], ["secure"]]


def test_pulumi_starts_the_program_on_the_example_stack():
    values, secrets = StackFile(Declared(ROOT), STACK).values()
    assert values["dgx-spark:hfToken"] == ""
    assert secrets == []


def test_a_token_set_in_plain_text_is_refused_before_any_spark_is_asked(folder):
    assert run(folder, "stack", "init", STACK).returncode == 0
    assert run(folder, "config", "set", "hfToken", "hf_plain").returncode == 0
    refused = run(folder, "preview")
    shown = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "1 thing needs attention before anything is changed" in shown
    assert "dgx-spark:hfToken: is a secret, and is not encrypted in the stack's file" in shown
    assert "→ pulumi config set --secret hfToken …" in shown
    assert "hf_plain" not in shown


def test_commands_beside_pulumi_read_a_stack_whose_gateway_keys_are_encrypted(folder):
    assert run(folder, "stack", "init", STACK).returncode == 0
    assert run(folder, "config", "set", "--secret", "--path", "gatewayKeys.alice", "sk-1").returncode == 0
    made = load(raw(Project(folder, {}), STACK))
    assert {name: key.get_secret_value() for name, key in made.gateway_keys.items()} == {"alice": ""}
