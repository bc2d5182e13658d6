"""Settings are texts that people write: each gets where it belongs as it is, or is refused, whatever is in it.

The programs at the end of each way are the real ones: sh, bash, ssh, YAML's and JSON's readers.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

import components.inside.together as together
from components.facts.hub import Model
from components.plan import beside
from components.plan.engines import sglang
from components.problems import Refused
from components.remote import openssh, ssh
from components.resources import outputs
from components.scripts.contracts import PlannedCopyAccess
from tests.examples import some
from tests.unit.build import MODEL, plan, settings
from tests.unit.home import STACK, Home, record

NASTY = (
    *(
        "",
        " ",
        "-",
        "--help",
        "-- x",
        "'",
        '"',
        "\\",
        "$(id)",
        "`id`",
        "${HOME}",
        "a\nb",
        "a\tb",
        "\r",
        "%h",
        "#",
        "; id",
    ),
    *("*", "~", "!!", "“”", "é", "\u2028", "\x7f", "\x85", "😀", "null", "0x1", "{}", "[", "&a", "x: y", "x" * 10_000),
)
TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.text("ab '\"\\$`(){};&|<>*?~#%!\n-", max_size=30),
)
"""Without NUL, which no program can be given, and half characters, which no text has."""

QUICK = hypothesis(max_examples=some(60), deadline=None, suppress_health_check=list(HealthCheck))
SHOWS = "import json, sys; print(json.dumps(sys.argv[1:]))"


def shown(argv, **how):
    """What a program is given as its arguments in the end."""
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"}, **how)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@QUICK
@given(words=st.lists(TEXT, min_size=1, max_size=3))
def test_a_command_for_a_container_is_the_same_words_behind_ssh(shell, words):
    assert shown([shell, "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(SHOWS)} {ssh.quote(words)}"]) == words


@QUICK
@given(words=st.lists(TEXT, min_size=1, max_size=3))
def test_an_engines_words_are_its_own_also_where_a_shell_fetches_the_key(words, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "vllm"
    folder.mkdir(exist_ok=True)
    (folder / "vllm").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{SHOWS}' \"$@\"\n")
    (folder / "vllm").chmod(0o755)
    (folder / "key").write_text("sk-'\"$(id)")
    (rank,) = plan(settings(1, apiKey="sk-x", serving={"extraArgs": words})).ranks
    command = [word.replace("/run/api-key", str(folder / "key")) for word in rank.command]
    command[0] = "/bin/sh"
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout)[-len(words) :] == words, done.stderr


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@QUICK
@given(words=st.lists(TEXT, max_size=3), variable=TEXT)
def test_words_and_variables_reach_docker_as_they_are(engine, words, variable):
    for rank in plan(settings(engine=engine, serving={"extraArgs": words, "env": {"MINE": variable}})).ranks:
        assert "\0".join(["", *words, ""]) in "\0".join(["", *rank.command, ""])
        assert rank.environment["MINE"] == variable


@hypothesis(QUICK, max_examples=some(15))
@given(words=st.lists(TEXT, min_size=1, max_size=3))
def test_the_main_process_of_a_container_hands_an_engines_words_on(words):
    command = ["python3", together.__file__, "--rank=0", "--names=a", "--restarts=0", "--", sys.executable, "-c", SHOWS]
    done = subprocess.run(
        [sys.executable, *command[1:], *words], capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"}
    )
    assert json.dumps(words) in done.stdout.splitlines(), done.stderr


def sshd_reads(line):
    """The command of a line in authorized_keys. Source: openssh-portable, auth-options.c, opt_dequote."""
    text = line[line.index('command="') + len('command="') :]
    found = []
    while not text.startswith('"'):
        step = 2 if text.startswith('\\"') else 1
        found.append(text[step - 1])
        text = text[step:]
    return "".join(found)


@hypothesis(QUICK, max_examples=some(15))
@given(name=TEXT.filter(lambda name: "\n" not in name and "\r" not in name and "/" not in name and 0 < len(name) < 80))
def test_the_one_directory_that_a_key_may_read_is_that_one_whatever_its_name(name, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("home"))
    directory = f"{home.path}/{name}"
    given_ = PlannedCopyAccess(key="copy-key", sources=["10.0.0.2"], directory=directory, record=record("copy-access"))
    assert home.run("copy_access.py", "apply", keys=["ssh-ed25519 KEY"], **given_).returncode == 0
    command = sshd_reads((home.path / ".ssh/authorized_keys").read_text())
    server = f"{home.path}/.local/state/dgx-spark/{STACK.replace('/', '.')}/scripts/copy_server.py"
    assert shown(["sh", "-c", command.replace("python3 -B", f"{sys.executable} -c {shlex.quote(SHOWS)}", 1)]) == [
        server,
        directory,
    ]


@QUICK
@given(path=TEXT.filter(lambda path: "\n" not in path and "\r" not in path and "${" not in path and len(path) < 200))
def test_a_key_file_is_found_by_ssh_whatever_its_name(path):
    target = openssh.Target("spark-1", "10.0.0.1", 22, "nvidia", "ssh-ed25519 AAAA", f"/keys/{path}")
    said = subprocess.run(["ssh", "-G", "-F", "none", *openssh.argv(target)[1:]], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    (found,) = (line for line in said.stdout.split("\n") if line.startswith("identityfile "))
    assert found == f"identityfile /keys/{path}".replace("%", "%%")


@pytest.mark.parametrize("path", ["~/.ssh/id_ed25519", "/home/é/.ssh/key-1.pem"])
def test_an_ordinary_key_file_stands_as_it_always_did_since_another_spelling_would_replace_the_provider(path):
    assert openssh.word(path) == path


@QUICK
@given(name=TEXT.filter(bool))
@example("😀")
def test_the_gateways_yaml_names_the_model_as_it_is(name):
    (made,) = beside.plan(settings(gateway=True), plan().identity, {}, 8000, name)
    config = yaml.safe_load(made.files["/etc/dgx-spark/litellm.yaml"])
    (model,) = config["model_list"]
    assert (model["model_name"], model["litellm_params"]["model"]) == (name, f"hosted_vllm/{name}")


@QUICK
@given(key=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=100))
def test_a_key_is_the_same_in_yaml_and_json(key):
    assert yaml.safe_load(sglang.api_key_file(key)) == {"api-key": key}
    assert json.loads(beside.secrets(settings(gatewayKeys={"a": key}))[beside.KEYS]) == {"a": key}


@QUICK
@given(name=TEXT.filter(bool))
def test_the_example_that_a_person_copies_asks_for_the_model_as_it_is(name):
    made = replace(plan(), served_name=name)
    words = shlex.split(outputs.example(made, settings()))
    assert json.loads(words[-1])["model"] == name


@QUICK
@given(repo=TEXT.filter(bool))
def test_what_a_snapshot_is_looked_for_by_is_one_word_of_the_command(repo):
    model = Model(repo, "c" * 40, MODEL.files, MODEL.config)
    (rank,) = plan(settings(1), model=model).ranks
    assert len([word for word in rank.command if repo.replace("/", "--") in word or repo in word]) >= 1
    assert re.fullmatch(r"vllm", rank.command[0])


def test_no_program_can_be_given_a_nul_so_none_is_accepted():
    with pytest.raises(Refused, match="serving: holds a NUL character"):
        settings(serving={"extraArgs": ["a\0b"]})
