"""The bill of materials: what is installed, and what a stack has put on its Sparks."""

import re
from importlib import metadata

from ops import sbom

OUTPUTS = {
    "image": "sha256:" + "1" * 64,
    "engine": "vllm",
    "model": "openai/gpt-oss-120b",
    "revision": "c0ffee" + "0" * 34,
}


def test_every_installed_package_is_in_it_once_with_the_hashes_of_the_lock():
    bill = sbom.bill(sbom.environment())
    named = {one["name"]: one for one in bill["components"]}
    assert len(named) == len(bill["components"]) == len(list(metadata.distributions()))
    pydantic = named["pydantic"]
    assert pydantic["purl"] == f"pkg:pypi/pydantic@{metadata.version('pydantic')}"
    assert pydantic["properties"]
    assert all(re.fullmatch("[0-9a-f]{64}", one["value"]) for one in pydantic["properties"])


def test_the_same_things_are_the_same_bill():
    assert sbom.bill(sbom.environment()) == sbom.bill(sbom.environment())


def test_image_and_model_of_a_stack_are_in_it():
    image, model = sbom.bill(sbom.on_sparks(OUTPUTS))["components"][::-1]
    assert image["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert model["purl"] == f"pkg:huggingface/openai/gpt-oss-120b@{OUTPUTS['revision']}"
    assert list(sbom.on_sparks({})) == []
