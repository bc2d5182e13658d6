"""The Cluster for every Pulumi language: a component provider, whose schema is made from the settings' own types.

Pulumi's component_provider_host reads inputs off annotated dictionaries; ours are pydantic models already, and one
place says what they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, Provider, main
from pulumi.runtime.sync_await import _sync_await

from components.building import cluster
from components.problems import Problem, Refused
from components.settings import PROJECT, Settings

ANY = {"$ref": "pulumi.json#/Any"}
VERSION = "0.1.0"
TOKEN = "dgx-spark:cluster:Cluster"
SECRETS = ("hfToken", "apiKey", "gatewayKeys")
OUTPUTS = {
    "apiBase": "The OpenAI-compatible API.",
    "model": "Its name in the API.",
    "image": "Id of the image that the head runs.",
}


def serve(argv: Sequence[str]) -> None:
    """Answer the engine whose address is the first word, until it ends."""
    main(Package(), list(argv))


class Package(Provider):
    def __init__(self) -> None:
        super().__init__(VERSION, json.dumps(schema()))

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        if resource_type != TOKEN:
            raise ValueError(f"{resource_type} is not of this package, which has {TOKEN}")
        values, secret = _values(inputs)
        made = cluster(name, values, encrypted=secret, opts=options)
        state = {"apiBase": made.plan.api_base, "model": made.plan.served_name, "image": made.image_id}
        return ConstructResult(made.urn, state)


def _values(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Key → value, and the keys in which there is a secret.

    Raises RunError for what another resource has yet to tell: the plan is made before anything is.
    """
    values, secret, unknown = {}, set(), []
    for key, given in inputs.items():
        output = pulumi.Output.from_input(given)
        if not _sync_await(output.is_known()):
            unknown.append(Problem(key, "is not known yet", "give a value that no other resource has to make first"))
            continue
        values[key] = _whole(_sync_await(output.future()))
        if _sync_await(output.is_secret()):
            secret.add(key)
    if unknown:
        raise pulumi.RunError(str(Refused(unknown)))
    return values, secret


def _whole(value: Any) -> Any:
    """The wire knows doubles only: 22.0 is a port."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def schema() -> dict[str, Any]:
    """Pulumi's package schema (https://www.pulumi.com/docs/iac/using-pulumi/pulumi-packages/schema/)."""
    made = Settings.model_json_schema(by_alias=True)
    inputs = {key: _property(value) for key, value in made["properties"].items()}
    for key in SECRETS:
        inputs[key]["secret"] = True
    types = {
        _token(name): {
            "type": "object",
            "description": about.get("description", ""),
            "properties": {key: _property(value) for key, value in about["properties"].items()},
            "required": about.get("required", []),
        }
        for name, about in made["$defs"].items()
    }
    outputs = {key: {"type": "string", "description": text} for key, text in OUTPUTS.items()}
    resource = {
        "isComponent": True,
        "description": "One, two or N DGX Sparks that serve one model.",
        "inputProperties": inputs,
        "requiredInputs": ["nodes"],
        "properties": outputs,
        "required": list(outputs),
    }
    return {
        "name": PROJECT,
        "version": VERSION,
        "description": "LLM inference on NVIDIA DGX Sparks.",
        "license": "MIT",
        "types": types,
        "resources": {TOKEN: resource},
    }


def _token(name: str) -> str:
    return f"dgx-spark:cluster:{name}"


def _property(about: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": about["description"]} if "description" in about else {}
    return {**_type(about), **described}


def _type(about: Mapping[str, Any]) -> dict[str, Any]:
    """Every value is plain: the plan needs it before anything is made."""
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[1]
        return {"$ref": f"#/types/{_token(name)}", "plain": True}
    if "anyOf" in about:
        return _type(next(one for one in about["anyOf"] if one.get("type") != "null"))
    kind = about.get("type")
    if kind == "array":
        return {"type": "array", "items": _type(about["items"]), "plain": True}
    if kind == "object":
        values: Any = about.get("additionalProperties") or next(iter(about.get("patternProperties", {}).values()), {})
        return {"type": "object", "additionalProperties": _type(values) if values is not True else ANY, "plain": True}
    if kind is None:
        return dict(ANY)
    return {"type": "string" if isinstance(kind, list) else kind, "plain": True}
