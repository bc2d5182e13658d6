"""As much of JSON Schema (2020-12) as docs/stack.schema.json uses, by which an editor would mark a stack's file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

KINDS: dict[str, Any] = {
    "array": list, "boolean": bool, "integer": int, "null": type(None), "number": (int, float), "object": dict,
    "string": str,
}  # fmt: skip
WORDS = {"$schema", "$defs", "title", "description", "default"}
"""Keywords that refuse nothing."""

REFUSES = {
    "const": lambda value, said: value != said,
    "enum": lambda value, said: value not in said,
    "pattern": lambda value, said: isinstance(value, str) and not re.search(said, value),
    "minLength": lambda value, said: isinstance(value, str) and len(value) < said,
    "minimum": lambda value, said: _number(value) and value < said,
    "exclusiveMinimum": lambda value, said: _number(value) and value <= said,
    "maximum": lambda value, said: _number(value) and value > said,
    "type": lambda value, said: not any(_is(value, kind) for kind in ([said] if isinstance(said, str) else said)),
}


def marked(value: Any, schema: Any, root: Any, at: str = "") -> Iterator[str]:
    """Where it is wrong, and by which keyword. Raises KeyError for a keyword that is not known here."""
    if isinstance(schema, bool):
        yield from () if schema else [f"{at}: not allowed"]
        return
    beside = {"properties", "patternProperties", "additionalProperties"}
    for word, said in schema.items():
        if word == "$ref":
            yield from marked(value, root["$defs"][said.removeprefix("#/$defs/")], root, at)
        elif word == "anyOf":
            if all(any(marked(value, one, root, at)) for one in said):
                # The one that came closest says where.
                yield min((list(marked(value, one, root, at)) for one in said), key=_nearness)[0]
        elif word == "not":
            if not any(marked(value, said, root, at)):
                yield f"{at}: not"
        elif word == "items":
            for number, item in enumerate(value if isinstance(value, list) else []):
                yield from marked(item, said, root, f"{at}[{number}]")
        elif word == "required":
            yield from (f"{at}.{key}: required" for key in said if isinstance(value, dict) and key not in value)
        elif word == "propertyNames":
            for key in value if isinstance(value, dict) else ():
                yield from (f"{at}.{key}: propertyNames" for _ in marked(key, said, root, at))
        elif word not in WORDS | beside and REFUSES[word](value, said):
            yield f"{at}: {word}"
    for key, item in value.items() if isinstance(value, dict) else ():
        named = [schema.get("properties", {}).get(key)]
        named += [one for form, one in schema.get("patternProperties", {}).items() if re.search(form, key)]
        found = [one for one in named if one is not None] or [schema.get("additionalProperties", True)]
        for one in found:
            yield from marked(item, one, root, f"{at}.{key}")


def _nearness(found: list[str]) -> int:
    """Deeper is nearer."""
    return -max(len(re.findall(r"[.\[]", one.rpartition(": ")[0])) for one in found)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind])
