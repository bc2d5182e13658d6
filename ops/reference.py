"""docs/configuration.md, made from the settings' own types, defaults and words."""

from __future__ import annotations

import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from components.settings import Node, NodeFabric, Settings
from ops.pulumi import ROOT

FILE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Made by `./spark docs` from components/settings/; change the words there.

Every key is in the stack's `Pulumi.<stack>.yaml` below `dgx-spark:`. Top-level values are set with
`pulumi config set KEY VALUE`, those inside an object with `pulumi config set --path 'OBJECT.KEY' VALUE`,
secrets with `--secret`. What is not set has the default given here.
"""


def text() -> str:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    rows, sections = [], []
    for name, field in Settings.model_fields.items():
        key = field.alias or name
        spec = project[key]
        nested = _model(field.annotation)
        if nested is not None and name != "nodes":
            sections += _sections(key, nested)
            continue
        default = json.dumps(spec["default"]) if "default" in spec else "required"
        rows.append(_row(key, _type(field.annotation), default, field.description or spec["description"]))
    nodes = [_section("nodes[]", Node), _section("nodes[].fabric", NodeFabric)]
    table = "\n".join(["| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows])
    return "\n".join([HEAD, table, "", *nodes, *sections]).rstrip() + "\n"


def write() -> Path:
    FILE.write_text(text())
    return FILE


def _sections(title: str, model: type[BaseModel]) -> list[str]:
    """Its own, and those of the objects in it."""
    inner = [(field.alias or name, _model(field.annotation)) for name, field in model.model_fields.items()]
    below = [section for key, nested in inner if nested for section in _sections(f"{title}.{key}", nested)]
    return [_section(title, model), *below]


def _section(title: str, model: type[BaseModel]) -> str:
    rows = [
        _row(field.alias or name, _type(field.annotation), _default(field), field.description or "")
        for name, field in model.model_fields.items()
        if _model(field.annotation) is None
    ]
    about = re.sub(r"\s+", " ", (model.__doc__ or "")).strip()
    return "\n".join(
        [f"## {title}", "", about, "", "| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows, ""]
    )


def _row(key: str, kind: str, default: str, meaning: str) -> str:
    words = re.sub(r"\s+", " ", meaning).replace("|", "\\|").strip()
    return f"| `{key}` | {kind} | `{default}` | {words} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = "" if isinstance(field.default, SecretStr) else field.default
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=lambda _: "…", ensure_ascii=False)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The settings class behind an annotation: `X`, `X | None` or `tuple[X, ...]`."""
    arguments = typing.get_args(annotation)
    wrapped = typing.get_origin(annotation) in (tuple, types.UnionType) and arguments
    candidate = arguments[0] if wrapped else annotation
    return candidate if isinstance(candidate, type) and issubclass(candidate, BaseModel) else None


NAMES = {
    Any: "anything",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret text",
}


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return ", ".join(_type(part) for part in arguments if part is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        return "list" if _model(annotation) else f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "(" + ", ".join(field.alias or name for name, field in annotation.model_fields.items()) + ")"
    return NAMES[annotation]
