"""Pulumi.yaml declares exactly the settings that the program reads."""

import json
from pathlib import Path

import pytest
import yaml

from components.settings import PLAIN, TOP_LEVEL, load
from components.settings import PROJECT as NAME
from ops import reference, schema
from tests.unit.json_schema import marked

ROOT = Path(__file__).parent.parent.parent
KINDS = {str: "string", bool: "boolean", dict: "object", list: "array"}
PROJECT = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())


def test_every_setting_is_declared_with_a_type_and_a_description():
    declared = {key: spec for key, spec in PROJECT["config"].items() if ":" not in key}
    assert set(declared) == set(TOP_LEVEL)
    for key, spec in declared.items():
        assert spec["description"]
        assert spec["type"] == KINDS[type(spec.get("default", []))], key
        assert (spec["type"] == "string") == (key in PLAIN), key


def test_no_key_is_declared_secret_for_pulumi_would_demand_that_its_default_be_encrypted():
    assert [key for key, spec in PROJECT["config"].items() if "secret" in spec] == []


def test_only_the_nodes_have_to_be_given():
    assert [key for key, spec in PROJECT["config"].items() if "default" not in spec and ":" not in key] == ["nodes"]


def test_drift_is_looked_for_always_and_no_local_docker_is_used():
    assert PROJECT["name"] == NAME
    assert PROJECT["options"]["refresh"] == "always"
    assert PROJECT["config"]["pulumi:disable-default-providers"]["value"] == ["docker"]


def test_the_configuration_reference_is_up_to_date():
    assert reference.FILE.read_text() == reference.text(), "run ./spark docs"


def test_the_schema_for_editors_is_up_to_date():
    assert schema.FILE.read_text() == schema.text(), "run ./spark docs"


def test_editors_know_every_key_with_what_it_means_and_mark_all_others():
    config = schema.document()["properties"]["config"]
    assert set(config["properties"]) == {f"{NAME}:{key}" for key in TOP_LEVEL}
    named = schema.document()["$defs"]
    serving = named["Serving"]
    assert serving["additionalProperties"] is False
    assert "Tokens of prompt and answer" in serving["properties"]["maxModelLen"]["description"]
    assert {"type": "integer", "minimum": 1} in serving["properties"]["maxModelLen"]["anyOf"][0]["anyOf"]


def test_editors_take_secrets_encrypted_and_what_pulumi_makes_of_words():
    about = schema.document()
    keys, named = about["properties"]["config"]["properties"], about["$defs"]
    assert schema.SECURE in keys[f"{NAME}:apiKey"]["anyOf"]
    for named_values in (keys[f"{NAME}:gatewayKeys"], named["Serving"]["properties"]["env"]):
        (value,) = named_values["patternProperties"].values()
        assert schema.SECURE in value["anyOf"]
    assert {"enum": ["true", "false"]} in keys[f"{NAME}:monitoring"]["anyOf"]
    assert named["Secure"]["required"] == ["secure"]


NODE = {"name": "spark-1", "host": "10.0.0.1"}


def marks(config):
    """What an editor marks in a stack's file of these settings."""
    about = json.loads(schema.FILE.read_text())
    return list(marked({"config": {f"{NAME}:{key}": value for key, value in config.items()}}, about, about))


def test_editors_mark_nothing_in_the_example_stack():
    config = yaml.safe_load((ROOT / "Pulumi.head-worker.yaml").read_text())["config"]
    assert marks({key.removeprefix(f"{NAME}:"): value for key, value in config.items()}) == []


def test_editors_mark_nothing_in_what_another_example_sets():
    (llm,) = yaml.safe_load((ROOT / "examples" / "yaml" / "Pulumi.yaml").read_text())["resources"].values()
    assert marks(llm["properties"]) == []


def test_editors_mark_nothing_that_pulumi_config_writes():
    """Words without --path, secrets, and keys of other packages and of Pulumi's own beside ours."""
    written = {"monitoring": "true", "apiKey": {"secure": "AAAB"}, "serving": {"env": {"TOKEN": {"secure": "AAAB"}}}}
    assert marks({"nodes": [NODE], **written}) == []
    about = json.loads(schema.FILE.read_text())
    beside = {"encryptionsalt": "v1:…", "config": {f"{NAME}:nodes": [NODE], "pulumi:tags": {}, "aws:region": "x"}}
    assert list(marked(beside, about, about)) == []


@pytest.mark.parametrize(
    ("config", "at"),
    [
        ({"nodez": []}, f".{NAME}:nodez: propertyNames"),
        ({"nodes": [{**NODE, "hots": "h"}]}, f".{NAME}:nodes[0].hots: not allowed"),
        ({"nodes": [{"name": "spark-1"}]}, f".{NAME}:nodes[0].host: required"),
        ({"nodes": [{**NODE, "name": "Spark 1"}]}, f".{NAME}:nodes[0].name: pattern"),
        ({"serving": {"maxModelLenght": 1}}, f".{NAME}:serving.maxModelLenght: not allowed"),
        ({"serving": {"maxModelLen": 0}}, f".{NAME}:serving.maxModelLen: minimum"),
        ({"serving": {"extraArgs": "--x"}}, f".{NAME}:serving.extraArgs: type"),
        ({"engine": "vlmm"}, f".{NAME}:engine: enum"),
        ({"monitoring": "yes"}, f".{NAME}:monitoring: type"),
        ({"apiKey": {"secret": "x"}}, f".{NAME}:apiKey.secure: required"),
    ],
)
def test_editors_mark_a_slip_where_it_is(config, at):
    assert f".config{at}" in marks({"nodes": [NODE], **config})


def test_the_example_stack_is_valid_as_it_is():
    config = yaml.safe_load((ROOT / "Pulumi.head-worker.yaml").read_text())["config"]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    made = load(texts)
    assert [node.name for node in made.nodes] == ["spark-1", "spark-2"]


def test_every_setting_in_the_reference_says_what_it_means():
    rows = [line for line in reference.text().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.rstrip("| ").endswith("`")] == []
