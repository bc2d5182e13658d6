"""What examples/ shows is accepted by what is here."""

import json
import re
from pathlib import Path

import pytest
import yaml

from components import package
from components.settings import load

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SCHEMA = package.schema()
RESOURCE = SCHEMA["resources"][package.TOKEN]
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def in_yaml():
    """The example's resource: type and inputs."""
    ((about),) = yaml.safe_load((EXAMPLES / "yaml" / "Pulumi.yaml").read_text())["resources"].values()
    return about["type"], about["properties"]


def in_typescript():
    source = (EXAMPLES / "typescript" / "index.ts").read_text()
    (found,) = re.findall(r'import \* as (\w+) from "@pulumi/dgx-spark"', source)
    made = re.search(rf'new {found}\.(\w+)\.(\w+)\("\w+", (\{{.*?\n\}})\);', source, re.DOTALL)
    assert made
    module, kind, literal = made.groups()
    # What JSON has otherwise than TypeScript.
    for pattern, instead in (
        (r"^\s*//.*$", ""),
        (r'config\.get\("(\w+)"\)', r'"\1"'),
        (r"([{,]\s*)(\w+):", r'\1"\2":'),
        (r",(\s*[}\]])", r"\1"),
    ):
        literal = re.sub(pattern, instead, literal, flags=re.MULTILINE)
    return f"{SCHEMA['name']}:{module}:{kind}", json.loads(literal)


def unknown(values, properties, required=(), path=""):
    """Paths of what the package's schema has not, or has as something else."""
    found = [f"{path}{key} is missing" for key in required if key not in values]
    for key, value in values.items():
        found += wrong(value, properties[key], f"{path}{key}") if key in properties else [f"{path}{key}"]
    return found


def wrong(value, about, path):
    if "$ref" in about:
        named = SCHEMA["types"][about["$ref"].removeprefix("#/types/")]
        return unknown(value, named["properties"], named["required"], f"{path}.")
    if not isinstance(value, KINDS[about["type"]]):
        return [f"{path} is no {about['type']}"]
    if about["type"] == "array":
        return [one for item in value for one in wrong(item, about["items"], path)]
    if about["type"] == "object":
        return [one for key, item in value.items() for one in wrong(item, about["additionalProperties"], path)]
    return []


@pytest.mark.parametrize("example", [in_yaml, in_typescript])
def test_the_package_has_the_type_and_each_key_that_the_example_sets(example):
    kind, values = example()
    assert kind == package.TOKEN
    assert unknown(values, RESOURCE["inputProperties"], RESOURCE["requiredInputs"]) == []
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    made = load({"dgx-spark:engine": "vllm", **{f"dgx-spark:{key}": text for key, text in texts.items()}})
    assert made.serving.max_model_len == 65536


def test_a_slip_in_an_example_is_seen():
    values = {
        "modl": "m",
        "nodes": [{"name": "a", "hots": "h"}],
        "serving": {"maxModelLen": "long"},
        "ssh": {"hostKeys": {"a": 1}},
    }
    assert unknown(values, RESOURCE["inputProperties"], RESOURCE["requiredInputs"]) == [
        "modl", "nodes.host is missing", "nodes.hots", "serving.maxModelLen is no integer", "ssh.hostKeys is no string",
    ]  # fmt: skip


def test_the_examples_read_outputs_that_are():
    read = re.findall(r"\bllm\.(\w+)", (EXAMPLES / "typescript" / "index.ts").read_text())
    read += re.findall(r"\$\{llm\.(\w+)\}", (EXAMPLES / "yaml" / "Pulumi.yaml").read_text())
    assert len(read) == 2
    assert set(read) <= RESOURCE["properties"].keys()


@pytest.mark.parametrize("example", ["yaml", "typescript"])
def test_the_project_of_the_example_names_the_package(example):
    project = yaml.safe_load((EXAMPLES / example / "Pulumi.yaml").read_text())
    folder = EXAMPLES / example / project["packages"][SCHEMA["name"]]
    assert (folder / "PulumiPlugin.yaml").exists()


def test_the_typescript_example_depends_on_what_pulumi_makes_of_the_package():
    """Source: pulumi, pkg/cmd/pulumi/packages/packages.go (the folder), pulumi-language-nodejs (the name)."""
    about = json.loads((EXAMPLES / "typescript" / "package.json").read_text())
    assert about["dependencies"][f"@pulumi/{SCHEMA['name']}"] == f"file:sdks/{SCHEMA['name']}"
    assert "namespace" not in SCHEMA


def test_the_ci_example_previews_and_looks_for_drift():
    jobs = yaml.safe_load((EXAMPLES / "ci" / "preview-and-drift.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert any(step.get("with", {}).get("command") == "preview" for step in steps)
    assert any("--expect-no-changes" in step.get("run", "") for step in steps)
