"""Where the secrets that users hand over get to: every registration of every engine, with all that can run beside.

Each secret holds a word of its own between characters that shells, JSON, YAML and Docker treat in their own way, so the
word is found however the secret was quoted.
"""

import base64
import json
import logging
from pathlib import Path

import pytest

from tests.program.record import run

ODD = "".join(map(chr, (*range(0x21, 0x30), *range(0x3A, 0x41), *range(0x5B, 0x61), *range(0x7B, 0x7F))))
"""Every visible character that is no letter and no digit."""

WORDS = {name: f"Secret-{name}-that-is-hunted" for name in ("hf", "api", "alice", "env", "arg", "build")}
SECRETS = {
    **{name: f"{ODD}{WORDS[name]}{ODD}" for name in ("hf", "api", "alice")},
    **{name: f" \n{ODD}“{WORDS[name]}” $(id)\t" for name in ("env", "build")},
    "arg": f"--token={WORDS['arg']}",
}

DOCKERFILE = Path(__file__).parent.parent / "e2e" / "small.Dockerfile"

LAYOUTS = {
    "one Spark": (1, {"engine": "vllm"}),
    "vLLM": (2, {"engine": "vllm"}),
    "vLLM on Ray": (2, {"engine": "vllm", "serving": {"executor": "ray"}}),
    "SGLang": (2, {"engine": "sglang"}),
    "TensorRT-LLM on Swarm": (2, {"engine": "trtllm"}),
    "TensorRT-LLM by MPI": (2, {"engine": "trtllm", "serving": {"launcher": "mpi"}}),
}


@pytest.fixture(params=LAYOUTS)
def made(request, tmp_path, monkeypatch, caplog):
    """All that one `pulumi up` with every secret registers."""
    caplog.set_level(logging.DEBUG)
    count, config = LAYOUTS[request.param]
    # trtllm-serve can't ask for a key, and a stack that wants one is refused.
    key = {} if config["engine"] == "trtllm" else {"apiKey": SECRETS["api"]}
    serving = {**config.get("serving", {}), "env": {"TOKEN": SECRETS["env"]}, "extraArgs": [SECRETS["arg"]]}
    return run(
        tmp_path,
        monkeypatch,
        count,
        **{**config, "serving": serving, **key},
        hfToken=SECRETS["hf"],
        gatewayKeys={"alice": SECRETS["alice"]},
        image={"source": "build", "buildArgs": {"TOKEN": SECRETS["build"]}, "dockerfile": str(DOCKERFILE)},
        monitoring=True,
        gateway=True,
        chat=True,
        encrypted=("serving", "image"),
    )


def found(shown):
    """Names of the secrets of which there is a trace in it, in clear or as base64."""
    text = shown if isinstance(shown, str) else repr(shown)

    def spelled(word):
        # Wherever in the encoded text the word begins, two characters at each end depend on its neighbours.
        coded = (base64.b64encode(b"x" * before + word.encode()).decode() for before in range(3))
        return [word, *(code[4:-4] for code in coded)]

    return {name for name, word in WORDS.items() if any(one in text for one in spelled(word))}


def test_the_hunt_finds_a_secret_however_it_is_quoted():
    for name, secret in SECRETS.items():
        for before in ("", "a", "ab"):
            quoted = base64.b64encode(json.dumps({before: secret}).encode()).decode()
            assert found(quoted) == {name}
    assert found(json.dumps(json.dumps(SECRETS))) == set(SECRETS)


def test_no_input_of_any_resource_shows_a_secret(made):
    assert {name: found(made.raw(name)) for name in made.requests if found(made.raw(name))} == {}
    everything = {name for one in made.requests for name in found(json.dumps(made.inputs(one), default=str))}
    assert everything >= {"hf", "env", "arg", "build", "alice"}, "nothing was hunted for"


def test_no_output_of_the_stack_shows_a_secret(made):
    handed = {**made.outputs, **{name: value for name, value in made.exports.items() if name != "image"}}
    assert {"cluster", "cluster-server", "api_base", "example"} <= handed.keys()
    assert {name: found(values) for name, values in handed.items() if found(values)} == {}


def test_docker_inspect_shows_no_secret_but_the_engines_own_words(made):
    """What a container's or service's specification holds, secret or not; words that users add to the engine's command
    line can't be anywhere else."""
    for type_ in ("docker:index/container:Container", "docker:index/service:Service"):
        for name in made.of_type(type_):
            seen = {key: value for key, value in made.inputs(name).items() if key != "uploads"}
            words = [seen.pop("command", [])]
            if container := seen.get("taskSpec", {}).get("containerSpec"):
                words.append(container.pop("args"))
            assert found(json.dumps(seen)) == set(), name
            assert found(json.dumps(words)) <= {"arg"}, name


def test_no_command_line_and_no_variable_on_a_spark_or_here_holds_a_secret(made):
    """Commands show in the logs of sshd, in Pulumi's error texts and among the processes."""
    for name in [*made.of_type("command:remote:Command"), *made.of_type("command:local:Command")]:
        seen = {key: value for key, value in made.inputs(name).items() if key not in ("stdin", "connection")}
        assert found(json.dumps(seen)) == set(), name


def test_nothing_that_the_program_says_holds_a_secret(made, caplog):
    assert found(caplog.text) == set()


def test_a_secret_is_in_the_input_of_those_steps_alone_that_need_it(made):
    steps = {name: found(json.dumps(made.inputs(name))) for name in made.of_type("command:remote:Command")}
    assert {name: words for name, words in steps.items() if words} == {
        "cluster-image-build": {"build"},
        "cluster-weights-spark-1": {"hf"},
    }
