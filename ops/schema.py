"""docs/stack.schema.json: what editors need to complete and check a stack's file, made from the settings' own types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.settings import PROJECT, Settings
from ops.pulumi import ROOT

FILE = ROOT / "docs" / "stack.schema.json"
SECURE = {"$ref": "#/$defs/Secure"}
SCALARS = ("string", "integer", "number", "boolean")
DEFS = {
    "Secure": {
        "description": "Encrypted by `pulumi config set --secret`.",
        "type": "object",
        "required": ["secure"],
        "additionalProperties": False,
        "properties": {"secure": {"type": "string"}},
    }
}


def document() -> dict[str, Any]:
    """JSON Schema (2020-12, as pydantic writes it) of Pulumi.STACK.yaml."""
    made = Settings.model_json_schema(by_alias=True)
    keys = {f"{PROJECT}:{key}": _top(_opened(value)) for key, value in made["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of DGX Sparks",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": keys,
                "required": [f"{PROJECT}:nodes"],
                # Other namespaces are other packages' business; a wrong key in ours is a slip.
                "propertyNames": {"anyOf": [{"enum": list(keys)}, {"not": {"pattern": f"^{PROJECT}:"}}]},
            }
        },
        "$defs": {**{name: _opened(value) for name, value in made["$defs"].items()}, **DEFS},
    }


def text() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def write() -> Path:
    FILE.write_text(text())
    return FILE


def _opened(schema: Any) -> Any:
    """With encrypted values and what `pulumi config set` makes of numbers allowed, and without titles and defaults.

    pydantic's titles repeat the key, and its defaults are of Python's making; descriptions say what is meant.
    """
    if isinstance(schema, list):
        return [_opened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if not _left_out(key, value)}
    for key, value in found.items():
        if key in ("properties", "patternProperties"):
            found[key] = {name: _opened(item) for name, item in value.items()}
        elif key != "propertyNames":
            found[key] = _opened(value)
    scalar = isinstance(found.get("type"), list) or found.get("type") in SCALARS
    return _or_encrypted(found) if scalar else found


def _left_out(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and isinstance(value, (dict, list)))


def _or_encrypted(scalar: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {key: scalar.pop(key) for key in ("description", "default") if key in scalar}
    plain = {key: value for key, value in scalar.items() if key not in ("format", "writeOnly")}
    if plain["type"] == "string" and "enum" not in plain:
        # `pulumi config set --path` writes what looks like a number as one.
        plain["type"] = ["string", "number"]
    return {**shown, "anyOf": [plain, SECURE]}


def _top(schema: dict[str, Any]) -> dict[str, Any]:
    """Without `--path` Pulumi writes text: "true"."""
    boolean = {"type": "boolean"}
    if boolean in schema.get("anyOf", []):
        return {**schema, "anyOf": [*schema["anyOf"], {"enum": ["true", "false"]}]}
    return schema
