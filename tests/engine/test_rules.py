"""The hermetic engine's own manners: errors, config, secrets, stacks, interrupts. Its steps: test_recorded.py."""

import json
import signal
import subprocess
import sys
import time

import pytest

from simulator.engine.providers import Old
from simulator.engine.providers.docker_types import Container
from tests.engine.lab import Lab

pytestmark = pytest.mark.usefixtures("hermetic")


QUIETLY = "from components.resources import ending\nending.quietly()\n"


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_an_unchanged_program_changes_nothing(lab):
    program = "command('x', said='1')\n"
    assert lab.up(program).calls == ["create x"]
    assert lab.up().calls == []
    assert lab.run("preview", "--expect-no-changes").code == 0


def test_destroy_deletes_dependents_first(lab):
    lab.up("x = command('x')\ncommand('y', opts=Opts(depends_on=[x]))\n")
    assert lab.run("destroy", "--yes").calls == ["delete y", "delete x"]
    assert lab.state() == []


def test_what_two_replaced_resources_have_in_common_is_deleted_once_and_one_of_them_does_not_wait_for_it(lab):
    # Where both waited for it, it would wait for the whole loop.
    delete = "for _ in $(seq 200); do grep -q delete calls.log && break; sleep 0.05; done; echo delete c >> calls.log"
    program = (
        "dbr = Opts(delete_before_replace=True)\n"
        "a, b = (command(name, said='1', triggers=['WORD'], opts=dbr) for name in 'ab')\n"
        f"command('c', triggers=[a.stdout, b.stdout], delete='{delete}')\n"
    )
    lab.up(program)
    calls = lab.up(program.replace("WORD", "other")).calls
    assert sorted(calls) == ["create a", "create b", "create c", "delete a", "delete b", "delete c"]
    first, then = sorted(calls.index(f"delete {name}") for name in "ab")
    assert first < calls.index("delete c") < then


def test_after_a_failure_nothing_is_deleted_and_the_next_run_goes_on(lab):
    lab.up("command('old')\n")
    bad = "a = command('a')\nlocal.Command('bad', create='echo why >&2; exit 3', opts=Opts(depends_on=[a]))\n"
    failed = lab.up(bad)
    assert failed.code == 1
    assert failed.calls == ["create a"]
    assert 'exit status 3: running "echo why >&2; exit 3":\n    why' in failed.text
    names = {row["urn"].rsplit("::", 1)[1] for row in lab.state()}
    assert {"old", "a"} <= names
    assert "bad" not in names
    assert lab.up("command('a')\ncommand('b')\n").calls == ["create b", "delete old"]


def test_a_program_is_interrupted_when_a_step_has_failed_and_ours_says_nothing_to_it(lab):
    bad = "a = local.Command('bad', create='exit 3')\ncommand('b', triggers=[a.stdout])\n"
    assert "KeyboardInterrupt" in lab.up(bad).text
    quiet = lab.up(QUIETLY + bad)
    assert quiet.code == 1
    assert 'exit status 3: running "exit 3"' in quiet.text
    assert "Traceback" not in quiet.text


def test_ours_is_refused_with_its_problems_alone_where_a_run_error_is_called_unhandled_as_well(lab):
    unhandled = "an unhandled error occurred: program exited with non-zero exit code: 1"
    assert unhandled in lab.run("preview", program="raise pulumi.RunError('why')\n").text
    refused = lab.run(
        "preview",
        program="from components.problems import Problem, Refused\nfrom components.resources import ending\n"
        "command('x')\nending.refuse(Refused([Problem('spark-2', 'is off', 'press its button')]))\n",
    )
    assert refused.code == 1
    assert refused.text.partition("Diagnostics:")[2].count("error:") == 1
    told = (
        "error: 1 thing needs attention before anything is changed\n      spark-2: is off\n        → press its button"
    )
    assert told in refused.text


def test_a_program_that_raises_shows_its_words_and_no_traceback_for_run_errors(lab):
    failed = lab.up("raise pulumi.RunError('two\\n  lines')\n")
    assert failed.code == 1
    assert "error: two\n      lines" in failed.text
    assert "Traceback" not in failed.text


def test_a_warning_is_shown_with_the_name_of_what_it_is_about(lab):
    shown = lab.up("x = command('x')\npulumi.warn('careful', x)\npulumi.warn('of all')\n").text
    assert "    x: warning: careful\n" in shown
    assert "    warning: of all\n" in shown


def test_secrets_are_encrypted_in_the_state_and_masked_on_the_screen(lab):
    program = (
        "command('x', stdin=pulumi.Output.secret('hush-hush'))\npulumi.export('s', pulumi.Output.secret('hush-hush'))\n"
    )
    shown = lab.up(program).text
    assert "hush-hush" not in shown
    assert "hush-hush" not in json.dumps(lab.state())
    assert "ciphertext" in json.dumps(lab.state())
    assert lab.run("stack", "output", "s", "--show-secrets").text.strip() == "hush-hush"
    assert lab.up().calls == []


def test_an_unknown_resource_type_stops_the_run_and_is_named(lab):
    program = "pulumi.CustomResource('aws:s3/bucket:Bucket', 'b', {})\n"
    failed = lab.up(program)
    assert failed.code == 1
    assert "the hermetic engine has no resource type aws:s3/bucket:Bucket" in failed.text


def test_duplicate_names_are_refused(lab):
    failed = lab.up("command('x')\ncommand('x')\n")
    assert failed.code == 1
    assert "Duplicate resource URN" in failed.text


def test_a_disabled_default_provider_is_refused(tmp_path):
    lab = Lab(tmp_path, "config:\n  pulumi:disable-default-providers:\n    value: [docker]\n")
    failed = lab.up("import pulumi_docker\npulumi_docker.RemoteImage('i', name='x')\n")
    urn = "urn:pulumi:dev::lab::docker:index/remoteImage:RemoteImage::i"
    assert f"Default provider for 'docker' disabled. '{urn}' must use an explicit provider" in failed.text


SCHEMA = """config:
  size: {type: integer, default: 3}
  tags: {type: array, items: {type: string}, default: [a]}
  token: {type: string, secret: true}
"""


def test_config_is_checked_before_the_program_runs(tmp_path):
    lab = Lab(tmp_path, SCHEMA)
    lab.program("raise SystemExit('not reached')\n")
    refused = "error: validating stack config: Stack 'dev'"
    assert f"{refused} is missing configuration value 'token'\n" in lab.run("preview").text
    lab.run("config", "set", "token", "t")
    key = f"{refused} with configuration key"
    assert f"{key} 'token' must be encrypted as it's secret\n" in lab.run("up", "--yes").text
    lab.run("config", "set", "--secret", "token", "t")
    lab.run("config", "set", "size", "many")
    assert f"{key} 'size' must be of type 'integer'\n" in lab.run("preview").text
    lab.run("config", "set", "size", "4")
    lab.run("config", "set", "--path", "tags[0]", "7")
    assert f"{key} 'tags' must be of type 'array<string>'\n" in lab.run("preview").text
    # What does not run the program does not mind, as with the CLI.
    assert "many" not in lab.run("config").text
    assert lab.run("destroy", "--yes").code == 0


def test_a_default_of_a_secret_key_is_refused_for_it_is_not_encrypted(tmp_path):
    lab = Lab(tmp_path, "config:\n  token: {type: string, secret: true, default: ''}\n")
    lab.program("raise SystemExit('not reached')\n")
    shown = lab.run("preview").text
    assert "Stack 'dev' with configuration key 'token' must be encrypted as it's secret" in shown


def test_missing_keys_are_named_together(tmp_path):
    lab = Lab(tmp_path, "config:\n  c: {type: string}\n  a: {type: string}\n  b: {type: integer}\n")
    lab.program("")
    assert "Stack 'dev' is missing configuration values 'a', 'b' and 'c'\n" in lab.run("preview").text


def test_an_object_is_secret_as_soon_as_anything_in_it_is_and_an_encrypted_text_is_no_object(tmp_path):
    lab = Lab(tmp_path, "config:\n  keys: {type: object, default: {}}\n  open: {type: object, default: {}}\n")
    lab.program("import json, os\nprint('secret:', os.environ['PULUMI_CONFIG_SECRET_KEYS'])\n")
    lab.run("config", "set", "--path", "keys.bob", "plain")
    assert "secret: []" in lab.run("preview").text
    lab.run("config", "set", "--path", "--secret", "keys.alice", "hush")
    assert 'secret: ["lab:keys"]' in lab.run("preview").text
    lab.run("config", "set", "--secret", "keys", "{}")
    assert "'keys' must be of type 'object'" in lab.run("preview").text


def test_defaults_paths_and_secrets_reach_the_program(tmp_path):
    lab = Lab(tmp_path, SCHEMA)
    lab.run("config", "set", "--secret", "token", "hush")
    lab.run("config", "set", "--path", "nodes[0].host", "h1")
    lab.run("config", "set", "--path", "nodes[1].host", "h2")
    lab.run("config", "set", "--path", "nodes[1].port", "22")
    assert "hush" not in (tmp_path / "Pulumi.dev.yaml").read_text()
    lab.program(
        "c = pulumi.Config()\n"
        "print(c.require_int('size'), c.require_object('tags'), c.require_object('nodes'), c.require('token'))\n"
    )
    assert "3 ['a'] [{'host': 'h1'}, {'host': 'h2', 'port': 22}] hush" in lab.run("preview").text
    assert lab.run("config", "get", "--path", "nodes[1].host").text.strip() == "h2"
    assert lab.run("config", "get", "token").text.strip() == "hush"


def test_an_unrelated_passphrase_is_refused(lab, monkeypatch):
    lab.up("command('x')\n")
    monkeypatch.setattr(lab, "environment", lambda: {**Lab.environment(lab), "PULUMI_CONFIG_PASSPHRASE": "other"})
    assert "incorrect passphrase" in lab.run("preview").text


def test_stacks_are_listed_selected_and_removed_only_when_empty(lab):
    lab.run("stack", "init", "second")
    assert lab.run("stack", "ls").text.split() == ["dev", "second*"]
    lab.run("stack", "select", "dev")
    lab.up("command('x')\n")
    assert "still has resources" in lab.run("stack", "rm", "dev", "--yes").text
    lab.run("destroy", "--yes")
    assert lab.run("stack", "rm", "dev", "--yes").code == 0
    assert lab.run("stack", "ls").text.split() == ["second"]


@pytest.mark.parametrize("said", ["dev", "organization/dev", "organization/lab/dev"])
def test_a_stack_is_named_in_all_of_pulumis_ways_and_called_by_its_whole_name_where_that_is_asked_for(lab, said):
    assert lab.run("stack", "--show-name", "--stack", said).text == "dev\n"
    whole = lab.run("stack", "--show-name", "--fully-qualify-stack-names", "--stack", said)
    assert whole.text == "organization/lab/dev\n"
    assert lab.run("stack", "select", said).code == 0
    assert lab.run("config", "--stack", said).code == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("anna/dev", "organization name must be 'organization'"),
        ("anna/lab/dev", "organization name must be 'organization'"),
        ("organization/other/dev", "no stack named 'organization/other/dev' found"),
        ("organization/", "a stack name may not be empty"),
        ("organization/lab/dev/x", "a stack name may not be empty"),
    ],
)
def test_a_stack_of_another_organization_or_project_is_not_this_one(lab, said, why):
    for words in (("stack", "--show-name"), ("stack", "select"), ("preview",)):
        refused = lab.run(*words, "--stack", said)
        assert (refused.code != 0, refused.text) == (True, f"error: {why}\n"), words


def test_a_folder_for_the_state_that_is_not_there_is_refused_and_not_made(lab):
    state = lab.folder / "backend"
    state.rename(lab.folder / "away")
    refused = f'error: unable to open state directory "file://{state}": stat {state}: no such file or directory'
    for words in (["preview"], ["stack", "ls"], ["stack", "init", "other"], ["config"]):
        assert lab.run(*words, program="").text.strip() == refused
    assert not state.exists()


def test_a_virtual_environment_that_is_none_is_refused_where_the_program_would_run(lab):
    folder = lab.folder / "env"
    folder.mkdir()
    lab.program("raise SystemExit('not reached')\n")
    runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": "env"}}
    (lab.folder / "Pulumi.yaml").write_text(f"name: lab\nruntime: {json.dumps(runtime)}\n")
    (folder / "file").touch()
    for word in ("preview", "up"):
        refused = lab.run(word, *(["--yes"] if word == "up" else []))
        assert refused.code
        assert f"error: failed to discover package requirements: calling `{folder}/bin/python -m pip" in refused.text
    assert lab.run("config").code == 0
    assert lab.run("destroy", "--yes").code == 0


def test_an_interrupt_ends_what_runs_and_keeps_a_usable_state(lab):
    lab.program(f"{QUIETLY}command('x')\nlocal.Command('slow', create='touch started; sleep 60')\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.engine", "up", "--yes", "--skip-preview"],
        env=lab.environment(), cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not (lab.folder / "started").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 255
    assert "update canceled" in output
    assert "Traceback" not in output
    assert lab.up("command('x')\ncommand('z')\n").calls == ["create z"]


def test_a_second_interrupt_ends_at_once_and_the_next_run_says_what_was_left_undone(lab):
    lab.program(
        "local.Command('stubborn', create='trap \"touch told\" TERM; touch started; while :; do sleep 0.1; done')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.engine", "up", "--yes", "--skip-preview"],
        env=lab.environment(), cwd=lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for file in ("started", "told"):
        while not (lab.folder / file).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 255
    assert "an earlier run was interrupted while creating stubborn" in lab.up("command('x')\n").text


def test_killed_in_the_middle_of_a_step_the_next_run_says_so(lab):
    lab.program("local.Command('slow', create='touch started; sleep 3')\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.engine", "up", "--yes", "--skip-preview"],
        env=lab.environment(), cwd=lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (lab.folder / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    locked = lab.up("command('x')\n")
    assert "error: the stack is currently locked by 1 lock(s)." in locked.text
    assert locked.calls == []
    assert lab.run("preview").code == 0, "which changes nothing, and takes no lock"
    assert "for 'dev' has been canceled!" in lab.run("cancel", "--yes").text
    after = lab.up()
    assert "an earlier run was interrupted while creating slow" in after.text
    assert after.calls == ["create x"]


def test_a_destroy_that_goes_on_keeps_what_failed_and_what_that_needs(lab):
    program = (
        "base, other = command('base'), command('other')\n"
        "local.Command('stuck', create='true', delete='exit 3', opts=Opts(depends_on=[base]))\n"
        "command('top', opts=Opts(depends_on=[other]))\n"
    )
    lab.up(program)
    kept = lab.run("destroy", "--yes", "--refresh=false", "--continue-on-error")
    assert kept.code != 0
    assert sorted(kept.calls) == ["delete other", "delete top"]
    names = {row["urn"].rsplit("::", 1)[1] for row in lab.state() if "command:local" in row["urn"]}
    assert names == {"base", "stuck"}


def test_a_stack_that_the_cli_made_is_refused_and_left_as_it_is(lab):
    lab.up("command('x')\n")
    file = next((lab.folder / "backend").rglob("dev.json"))
    file.write_text(file.read_text().replace('"hermetic"', '"v3.260.0"'))
    before = file.read_text()
    for words in (["preview"], ["up", "--yes"], ["destroy", "--yes"], ["stack", "output"]):
        refused = lab.run(*words)
        assert refused.code == 1
        assert refused.text.splitlines()[-1].startswith(
            "error: stack 'dev' was brought up by the Pulumi CLI (v3.260.0)"
        )
        assert refused.calls == []
    assert file.read_text() == before


def test_a_preview_for_programs_has_what_changes_with_its_inputs_and_the_rest_where_it_is_asked_for(lab):
    def shown(*words):
        steps = json.loads(lab.run("preview", "--json", *words).text)["steps"]
        return {
            step["urn"].rsplit("::", 1)[1]: (step["op"], step["newState"]["inputs"].get("create"))
            for step in steps
            if "newState" in step and step["newState"]["type"] == "command:local:Command"
        }

    program = "command('x')\nlocal.Command('y', create=pulumi.Output.secret('echo WORD'), triggers=['WORD'])\n"
    lab.up(program)
    assert shown() == {}
    same = ("same", "echo create x >> calls.log; printf '%s' ''")
    assert shown("--show-sames") == {"x": same, "y": ("same", "[secret]")}
    lab.program(program.replace("WORD", "other"))
    assert shown() == {"y": ("replace", "[secret]")}
    assert shown("--show-sames") == {"x": same, "y": ("replace", "[secret]")}


def test_the_order_of_a_containers_command_counts_and_that_of_its_environment_does_not():
    before = Old("id", {"command": ["a", "b"], "envs": ["A=1", "B=2"], "restart": "no"}, {})
    diff = Container().diff(before, {"command": ["b", "a"], "envs": ["B=2", "A=1"], "restart": "always"})
    assert (diff.changed, diff.reasons) == ({"command", "restart"}, {"command"})
