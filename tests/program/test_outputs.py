"""The stack's outputs, as another Pulumi program gets them: by StackReference. Names and types are a promise."""

import json
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks

from tests.program.record import run

PROMISED = {
    "stack": str, "api_base": str, "health": str, "model": str, "revision": str, "engine": str, "configuration": str,
    "image": str, "nodes": dict, "dashboard": (str, type(None)), "beside": dict, "example": str, "api_key": str,
    "readme": str,
}  # fmt: skip


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """What a stack of two Sparks with a key exports: name → Output or value."""
    return run(tmp_path, monkeypatch, apiKey="sk-private").exports


class Backend(Mocks):
    """Where the outputs of the Sparks' stack lie, for whoever refers to it."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self.outputs = outputs

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        assert args.typ == "pulumi:pulumi:StackReference"
        return args.name, {"name": args.name, "outputs": self.outputs, "secretOutputNames": ["api_key"]}

    def call(self, args: MockCallArgs) -> dict[str, Any]:
        raise AssertionError(args.token)


def test_what_is_said_beforehand_is_said_at_the_spark_or_the_cluster_that_it_is_about(tmp_path, monkeypatch):
    long = {"maxModelLen": 10_000_000, "env": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}, "checkFit": False}
    made = run(tmp_path, monkeypatch, of_last={"perftest": False}, serving=long)
    assert made.requests["spark-2"].type == "dgx-spark:node:SparkNode"
    found = {text.partition(":")[0]: at for at, text in made.logs}
    assert found["spark-2"] == "spark-2"
    assert found["serving.maxModelLen"] == "cluster"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gpt-oss-120b", "chat/completions"),
        ("qwen3-vl-embedding-2b", "embeddings"),
        ("qwen3-vl-reranker-2b", "rerank"),
    ],
)
def test_the_example_asks_what_the_model_is_for(tmp_path, monkeypatch, model, path):
    example = run(tmp_path, monkeypatch, model=model).exports["example"]
    assert f":8000/v1/{path} " in example


def test_a_second_program_reads_what_it_needs_and_the_key_stays_secret(exported):
    plain = {name: value for name, value in exported.items() if not isinstance(value, pulumi.Output)}
    assert plain.keys() | {"image", "api_key"} == PROMISED.keys()
    for name, value in plain.items():
        assert isinstance(value, PROMISED[name]), name
    answers: dict[str, Any] = {}
    pulumi.runtime.set_mocks(Backend({**plain, "api_key": "sk-private"}), project="app", stack="dev", preview=False)

    @pulumi.runtime.test
    def program():
        sparks = pulumi.StackReference("organization/dgx-spark/head-worker")
        key = sparks.require_output("api_key")
        return pulumi.Output.all(
            base=sparks.require_output("api_base"),
            health=sparks.require_output("health"),
            head=sparks.require_output("nodes").apply(lambda nodes: nodes["spark-1"]["host"]),
            secret=pulumi.Output.from_input(key.is_secret()),
        ).apply(answers.update)

    program()
    assert answers == {
        "base": "http://10.0.0.1:8000/v1", "health": "http://10.0.0.1:8000/health", "head": "10.0.0.1", "secret": True,
    }  # fmt: skip


def test_outputs_are_short_and_hold_no_environment(exported):
    assert len(json.dumps(exported["nodes"])) < 400
    assert exported["nodes"]["spark-2"].keys() == {"rank", "host", "interface", "address", "hcas"}


def test_the_readme_is_filled_in(exported):
    assert "http://10.0.0.1:8000/v1" in exported["readme"]
    assert "${" not in exported["readme"]
