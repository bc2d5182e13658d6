"""Settings from what Pulumi hands over, and everything that is wrong with them at once."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from components import ports
from components.problems import Problem, Refused
from components.settings.stack import Settings
from components.settings.words import Frozen

PROJECT = "dgx-spark"
"""The project's name in Pulumi.yaml, which prefixes its config keys."""

TOP_LEVEL = {to_camel(name): name for name in Settings.model_fields}


def _kind(annotation: Any) -> str:
    """What a value of this type is, to a person."""
    if annotation in (str, SecretStr) or get_origin(annotation) is Literal:
        return TEXT
    if get_origin(annotation) is tuple:
        return "a list"
    return {bool: "true or false", int: "a number", float: "a number"}.get(annotation, "an object")


TEXT = "text"
KINDS = {key: _kind(Settings.model_fields[name].annotation) for key, name in TOP_LEVEL.items()}
PLAIN = tuple(key for key, kind in KINDS.items() if kind == TEXT)
"""Keys whose value is a string; the others reach the program as JSON."""


def load(raw: Mapping[str, str], project: str = PROJECT, encrypted: Collection[str] | None = None) -> Settings:
    """Settings from all config keys of the stack, as strings.

    encrypted   keys of which some part is encrypted in the stack's file; None: not known, so not looked at
    Raises Refused with every mistake: unknown keys, missing ones, wrong types and values, secrets in plain text.
    """
    own = {key.removeprefix(f"{project}:"): value for key, value in raw.items() if key.startswith(f"{project}:")}
    problems = list(_unknown(own, project))
    values, broken = _decoded({key: own[key] for key in own if key in TOP_LEVEL}, project, encrypted)
    problems += broken
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        places = {problem.at for problem in problems}
        found = [_explain(detail, project, encrypted) for detail in error.errors()]
        raise Refused([*problems, *(problem for problem in found if problem.at not in places)]) from None
    settings._encrypted = frozenset(key.removeprefix(f"{project}:") for key in encrypted or ())
    problems += _missing_host_keys(settings, project)
    problems += _plain_secrets(settings, project, encrypted) if encrypted is not None else ()
    if problems:
        raise Refused(problems)
    return settings


def _unknown(own: Mapping[str, str], project: str) -> Iterator[Problem]:
    for key in sorted(set(own) - set(TOP_LEVEL)):
        known = f"remove it with `pulumi config rm {key}`; there are {', '.join(TOP_LEVEL)}"
        yield Problem(f"{project}:{key}", "is not a setting", known)


def _decoded(
    own: Mapping[str, str], project: str, encrypted: Collection[str] | None
) -> tuple[dict[str, Any], list[Problem]]:
    """Key → value, and what can't be one."""
    values: dict[str, Any] = {}
    problems = []
    for key, text in own.items():
        if "\0" in text or "\\u0000" in text:
            fix = "take it out: no program can be given one"
            problems.append(Problem(f"{project}:{key}", "holds a NUL character", fix))
            continue
        try:
            values[key] = text if key in PLAIN else json.loads(text)
        except ValueError:
            given = "is not" if _secret(key, project, encrypted) else f"is {text!r}, not"
            problems.append(Problem(f"{project}:{key}", f"{given} {KINDS[key]}", f"see {key} in docs/configuration.md"))
    return values, problems


def _missing_host_keys(settings: Settings, project: str) -> Iterator[Problem]:
    for node in settings.nodes:
        if node.name not in settings.ssh.host_keys:
            port = settings.ssh.login(node).port
            scan = f"ssh-keyscan -t ed25519{'' if port == ports.SSH else f' -p {port}'} {node.host}"
            yield Problem(
                f"{project}:ssh.hostKeys.{node.name}",
                "is missing, so nothing would prove that this is the right machine",
                f"run `{scan}`, compare with /etc/ssh/ssh_host_ed25519_key.pub on the "
                f"Spark, then `pulumi config set --path 'ssh.hostKeys.{node.name}' 'ssh-ed25519 AAAA…'`",
            )


def _plain_secrets(settings: Settings, project: str, encrypted: Collection[str]) -> Iterator[Problem]:
    # Pulumi.yaml can't demand it: `secret: true` there refuses a default as well, and so makes the key mandatory.
    # Of an object Pulumi says only whether anything in it is encrypted.
    for key, name in TOP_LEVEL.items():
        if f"{project}:{key}" not in encrypted:
            for path in _secrets(getattr(settings, name), key):
                option = "" if path == key else "--path "
                yield Problem(
                    f"{project}:{path}",
                    "is a secret, and is not encrypted in the stack's file",
                    f"pulumi config set --secret {option}{path} …",
                )


def _secrets(value: Any, path: str) -> Iterator[str]:
    """Paths of the secrets in it that are not empty."""
    if isinstance(value, SecretStr):
        if value.get_secret_value():
            yield path
    elif isinstance(value, Frozen):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), f"{path}.{to_camel(name)}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets(item, f"{path}.{name}")


def _secret(path: str, project: str, encrypted: Collection[str] | None) -> bool:
    """What is written there may be a secret, and is not shown."""
    top = re.split(r"[.\[]", path)[0]
    return f"{project}:{top}" in (encrypted or ()) or bool(re.search("token|key|env|args", path, re.IGNORECASE))


def _explain(detail: Any, project: str, encrypted: Collection[str] | None) -> Problem:
    path = _path(detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    at = f"{project}:{path}" if path else project
    if kind == "missing":
        value = "ADDRESS" if path.endswith("host") else "VALUE"
        return Problem(at, "is missing", f"pulumi config set --path '{path}' {value}")
    if kind == "extra_forbidden":
        return Problem(at, "is not a setting", f"remove it: pulumi config rm --path '{path}'")
    if kind == "value_error" and not path:
        where, _, wrong = str(context["error"]).partition(": ")
        return Problem(f"{project}:{where}", wrong, "correct it in the stack's Pulumi.<stack>.yaml")
    given = "" if _secret(path, project, encrypted) else f" (it is {detail['input']!r})"
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(at, message[0].lower() + message[1:] + given, f"pulumi config set --path '{path}' VALUE")


def _path(location: tuple[int | str, ...]) -> str:
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return re.sub(r"^\.", "", words)
