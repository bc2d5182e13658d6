"""What examples/ shows is accepted by what is here."""

import json
from pathlib import Path

import yaml

from components import package
from components.settings import load

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_the_yaml_example_names_the_package_its_type_and_settings_that_are():
    program = yaml.safe_load((EXAMPLES / "yaml" / "Pulumi.yaml").read_text())
    ((about),) = program["resources"].values()
    assert about["type"] == package.TOKEN
    assert (EXAMPLES / "yaml" / program["packages"]["dgx-spark"] / "PulumiPlugin.yaml").exists()
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about["properties"].items()}
    made = load({"dgx-spark:engine": "vllm", **{f"dgx-spark:{key}": text for key, text in texts.items()}})
    assert made.serving.max_model_len == 65536
    named = {text.removeprefix("${llm.").removesuffix("}") for text in program["outputs"].values()}
    assert named <= package.OUTPUTS.keys()


def test_the_ci_example_previews_and_looks_for_drift():
    jobs = yaml.safe_load((EXAMPLES / "ci" / "preview-and-drift.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert any(step.get("with", {}).get("command") == "preview" for step in steps)
    assert any("--expect-no-changes" in step.get("run", "") for step in steps)
