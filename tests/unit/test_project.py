"""Pulumi.yaml declares exactly the settings that the program reads."""

from pathlib import Path

import yaml

from components.settings import PLAIN, TOP_LEVEL
from components.settings import PROJECT as NAME

PROJECT = yaml.safe_load((Path(__file__).parent.parent.parent / "Pulumi.yaml").read_text())


def test_every_setting_is_declared_with_a_type_and_a_description():
    declared = {key: spec for key, spec in PROJECT["config"].items() if ":" not in key}
    assert set(declared) == set(TOP_LEVEL)
    for key, spec in declared.items():
        assert spec["description"]
        assert spec["type"] == ("string" if key in PLAIN else "array" if key == "nodes" else "object")


def test_secrets_are_declared_secret():
    assert all(PROJECT["config"][key]["secret"] for key in ("hfToken", "apiKey"))


def test_only_the_nodes_have_to_be_given():
    assert [key for key, spec in PROJECT["config"].items() if "default" not in spec and ":" not in key] == ["nodes"]


def test_drift_is_looked_for_always_and_no_local_docker_is_used():
    assert PROJECT["name"] == NAME
    assert PROJECT["options"]["refresh"] == "always"
    assert PROJECT["config"]["pulumi:disable-default-providers"]["value"] == ["docker"]
