"""Pulumi.yaml and Pulumi.<stack>.yaml: what `pulumi config` reads and writes, and what the program gets."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from simulator.engine.crypter import Crypter, WrongPassphrase

TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "object": dict}


class UserError(Exception):
    """Shown as `error: …` without a traceback."""


def passphrase() -> str:
    if "PULUMI_CONFIG_PASSPHRASE" in os.environ:
        return os.environ["PULUMI_CONFIG_PASSPHRASE"]
    if "PULUMI_CONFIG_PASSPHRASE_FILE" in os.environ:
        return Path(os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text().strip()
    raise UserError(
        "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
    )


@dataclass(frozen=True)
class Options:
    """Of preview, up, refresh and destroy."""

    diff: bool = False
    json: bool = False
    refresh: bool | None = None
    """None: as the project has it."""

    expect_no_changes: bool = False
    continue_on_error: bool = False
    show_sames: bool = False


@dataclass
class Project:
    folder: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        path = self.folder / "Pulumi.yaml"
        if not path.exists():
            raise UserError(f"no Pulumi.yaml project file found in {self.folder}")
        found: dict[str, Any] = yaml.safe_load(path.read_text())
        return found

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def always_refresh(self) -> bool:
        return (self.document.get("options") or {}).get("refresh") == "always"

    @property
    def disabled_providers(self) -> list[str]:
        declared = (self.document.get("config") or {}).get("pulumi:disable-default-providers") or {}
        return list(declared.get("value", []))

    def require_python(self) -> None:
        """Raises UserError where the virtual environment of Pulumi.yaml is none.

        One that is not there, or empty, is none of the CLI's errors: it makes it, from requirements.txt.
        """
        runtime = self.document.get("runtime")
        named = (runtime.get("options") or {}).get("virtualenv") if isinstance(runtime, dict) else None
        folder = self.folder / (named or "")
        python = folder / "bin" / "python"
        if named and folder.exists() and any(folder.iterdir()) and not python.exists():
            raise UserError(
                f"failed to discover package requirements: calling `{python} -m pip list --format json`: "
                f"fork/exec {python}: no such file or directory"
            )

    def schema(self) -> dict[str, dict[str, Any]]:
        """Full key → declaration, for the keys of this project."""
        declared = self.document.get("config") or {}
        return {self.key(key): spec for key, spec in declared.items() if not key.startswith("pulumi:")}

    def key(self, key: str) -> str:
        return key if ":" in key else f"{self.name}:{key}"

    def short(self, key: str) -> str:
        return key.removeprefix(f"{self.name}:")


class StackFile:
    """Pulumi.<stack>.yaml. Writing keeps what it does not know; comments are lost, as with the Pulumi CLI."""

    def __init__(self, project: Project, stack: str) -> None:
        self.project, self.stack = project, stack
        self.path = project.folder / f"Pulumi.{stack}.yaml"
        text = self.path.read_text() if self.path.exists() else ""
        try:
            self.document: dict[str, Any] = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise UserError(f"{self.path.name} is no valid YAML: {error}") from None

    def save(self) -> None:
        self.path.write_text(yaml.safe_dump(self.document, sort_keys=False, width=1000, allow_unicode=True))

    @property
    def config(self) -> dict[str, Any]:
        return self.document.setdefault("config", {}) or {}

    def crypter(self, *, create: bool = True) -> Crypter:
        salt = self.document.get("encryptionsalt")
        if salt:
            try:
                return Crypter.open(passphrase(), salt)
            except WrongPassphrase as error:
                raise UserError(str(error)) from None
        if not create:
            raise UserError(f"stack {self.stack} has no encryption salt")
        crypter = Crypter.create(passphrase())
        self.document["encryptionsalt"] = crypter.state
        self.save()
        return crypter

    def set(self, key: str, value: str, *, secret: bool, path: bool) -> None:
        config = self.document.setdefault("config", {})
        stored: Any = {"secure": self.crypter().encrypt(value)} if secret else _typed(value) if path else value
        if not path:
            config[self.project.key(key)] = stored
        else:
            top, *rest = parse_path(key)
            _put(config, [self.project.key(str(top)), *rest], stored)
        self.save()

    def remove(self, key: str, *, path: bool) -> None:
        config = self.document.setdefault("config", {})
        words = parse_path(key) if path else [key]
        spot: Any = config
        steps: list[Any] = [self.project.key(str(words[0])), *words[1:]]
        for step in steps[:-1]:
            spot = spot[step]
        if isinstance(spot, dict):
            spot.pop(steps[-1], None)
        elif isinstance(spot, list) and steps[-1] < len(spot):
            del spot[steps[-1]]
        self.save()

    def merged(self) -> dict[str, Any]:
        """Full key → value as it stands in the file, over the defaults of Pulumi.yaml."""
        declared = self.project.schema().items()
        defaults = {key: spec["default"] for key, spec in declared if spec.get("default") is not None}
        return {**defaults, **{self.project.key(key): value for key, value in self.config.items()}}

    def values(self) -> tuple[dict[str, str], list[str]]:
        """What the program gets: key → text (JSON for lists and objects), and which keys are secret.

        Raises UserError before the program starts, for what the CLI refuses and in its words and order: missing keys
        all at once, else the first that is wrong (pkg/workspace/config.go).
        """
        merged = self.merged()
        opened = {key: self._open(value) for key, value in merged.items()}
        declared = sorted(self.project.schema().items())
        missing = [self.project.short(key) for key, _ in declared if key not in merged]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            wrong = f"is missing configuration value{plural} {_listed(missing)}"
            raise UserError(f"validating stack config: Stack '{self.stack}' {wrong}")
        for key, spec in declared:
            wrong = _wrong(spec, merged[key], opened[key])
            if wrong:
                where = f"Stack '{self.stack}' with configuration key '{self.project.short(key)}'"
                raise UserError(f"validating stack config: {where} must be {wrong}")
        secrets = [key for key, value in merged.items() if is_secure(value)]
        return {key: _text(value) for key, value in opened.items()}, secrets

    def shown(self) -> dict[str, str]:
        """Full key → what `pulumi config` shows; wrong and missing values don't keep it from that."""
        return {key: "[secret]" if is_secure(value) else _text(value) for key, value in self.merged().items()}

    def get(self, key: str, *, path: bool) -> Any:
        """Decrypted; None: nothing is there."""
        top, *rest = parse_path(key) if path else [key]
        spot = self._open(self.merged().get(self.project.key(str(top))))
        for word in rest:
            try:
                spot = spot[word]
            except (KeyError, IndexError, TypeError):
                return None
        return spot

    def _open(self, value: Any) -> Any:
        """Decrypted at any depth."""
        if isinstance(value, dict):
            if set(value) == {"secure"}:
                return self.crypter(create=False).decrypt(value["secure"])
            return {key: self._open(item) for key, item in value.items()}
        return [self._open(item) for item in value] if isinstance(value, list) else value


def _listed(keys: list[str]) -> str:
    *first, last = [f"'{key}'" for key in keys]
    return f"{', '.join(first)} and {last}" if first else last


def _wrong(spec: dict[str, Any], stored: Any, opened: Any) -> str:
    """'' for a value that its declaration allows. Keys without a type are not looked at."""
    if "type" not in spec:
        return ""
    if spec.get("secret") and not is_secure(stored):
        return "encrypted as it's secret"
    value = opened if isinstance(opened, dict | list) else _text(opened)
    return "" if _fits(value, spec) else f"of type '{_type_name(spec)}'"


def _fits(value: Any, spec: dict[str, Any]) -> bool:
    """ValidateConfigValue in sdk/go/common/workspace/project.go."""
    if spec["type"] == "array":
        return isinstance(value, list) and "items" in spec and all(_fits(item, spec["items"]) for item in value)
    if spec["type"] == "integer" and isinstance(value, str | float):
        return re.fullmatch(r"[+-]?\d+", value) is not None if isinstance(value, str) else value.is_integer()
    if spec["type"] == "boolean" and isinstance(value, str):
        return value in ("true", "false")
    if spec["type"] == "integer" and isinstance(value, bool):
        return False
    return isinstance(value, TYPES[spec["type"]])


def _type_name(spec: dict[str, Any]) -> str:
    return f"array<{_type_name(spec['items'])}>" if "items" in spec else str(spec["type"])


def is_secure(value: Any) -> bool:
    """An object or list is, where anything in it is."""
    if isinstance(value, dict):
        return set(value) == {"secure"} or any(is_secure(item) for item in value.values())
    return isinstance(value, list) and any(is_secure(item) for item in value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if not isinstance(value, bool) else str(value).lower()


def parse_path(path: str) -> list[str | int]:
    """`nodes[1].fabric.gidIndex` → ["nodes", 1, "fabric", "gidIndex"]; a name may be quoted as ["a.b"]."""
    words: list[str | int] = []
    rest = path
    while rest:
        match = re.match(r'\.?([^.\["]+)|\[(\d+)\]|\["([^"]*)"\]', rest)
        if not match:
            raise UserError(f"invalid configuration key path: {path}")
        words.append(int(match[2]) if match[2] is not None else match[3] if match[3] is not None else match[1])
        rest = rest[match.end() :]
    return words


def _typed(value: str) -> Any:
    """`--path` values are booleans and integers where they look like it (sdk/go/common/resource/config/map.go)."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"0|[1-9]\d*|-[1-9]\d*", value) else value


def _put(spot: Any, steps: list[Any], value: Any) -> None:
    for step, following in pairwise(steps):
        missing: Any = [] if isinstance(following, int) else {}
        if isinstance(spot, list):
            if step == len(spot):
                spot.append(missing)
            elif step > len(spot):
                raise UserError(f"array index {step} is out of range")
            spot = spot[step]
        else:
            if spot.get(step) is None:
                spot[step] = missing
            spot = spot[step]
    if isinstance(spot, list):
        if steps[-1] > len(spot):
            raise UserError(f"array index {steps[-1]} is out of range")
        spot[steps[-1] : steps[-1] + 1] = [value]
    else:
        spot[steps[-1]] = value
