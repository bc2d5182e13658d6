"""What several settings are written in: ports, names, addresses, paths."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema
from pydantic.alias_generators import to_camel

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]


class Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        # `pulumi config set --path` turns what looks like a number into one.
        coerce_numbers_to_str=True,
        # docs/configuration.md is made from what stands below each field (ops/reference.py).
        use_attribute_docstrings=True,
    )


def ipv4(value: Any) -> str:
    """With a prefix length only where one was written: /32, which the library adds, is no fabric's."""
    return str(ipaddress.IPv4Interface(value) if "/" in str(value) else ipaddress.IPv4Address(value))


KEY_TYPES = "ssh-ed25519|ecdsa-sha2-nistp256"
"""Of host keys. With an RSA key the command provider takes SHA-1 signatures alone, which OpenSSH ≥ 8.8 refuses."""


def _host_key(value: str) -> str:
    """The key alone out of what people paste: a line of known_hosts, of ssh-keyscan or of a .pub file."""
    found = re.search(rf"(?:^|\s)({KEY_TYPES})[ \t]+([A-Za-z0-9+/]{{20,}}={{0,2}})(?=\s|$)", value)
    if not found:
        raise ValueError("must be an ed25519 (or ecdsa) host key, ssh-ed25519 AAAA…")
    return " ".join(found.groups())


def _user(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise ValueError("must be an account's name: letters, digits, dots, hyphens and underscores")
    return value


def _cache(value: str) -> str:
    # It stands in commands for shells, rsync and Docker. A relative one would mean another directory to each.
    if not re.fullmatch(r"(~[\w.-]*)?(/[\w./+@%=,-]*)?", value) or not value:
        raise ValueError("must be a path that begins with / or ~/, without blanks, quotes, colons and variables")
    return value


def _host(value: Any) -> Any:
    """IPv6 also as it stands in URLs."""
    return value[1:-1] if isinstance(value, str) and re.fullmatch(r"\[[0-9A-Fa-f:.]+\]", value) else value


def _token(value: SecretStr) -> SecretStr:
    # It goes into a header, and the error of a client that can't send it would show it.
    if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
        raise ValueError(
            "holds what no header can carry: a blank, a line's end or a typographic quote that was pasted with it"
        )
    return value


def _text(value: Any) -> Any:
    """Variables are text, and YAML makes more of it: true."""
    return str(value).lower() if isinstance(value, bool) else value


def _image(value: str) -> str:
    # Docker's command would take one that begins with a hyphen for an option.
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", value, re.ASCII):
        raise ValueError("must be an image's name: [REGISTRY/]NAME[:TAG][@sha256:…]")
    return value


HostKey = Annotated[str, AfterValidator(_host_key)]
User = Annotated[str, AfterValidator(_user)]
Cache = Annotated[str, AfterValidator(_cache)]
Host = Annotated[str, BeforeValidator(_host), Field(pattern=r"^[A-Za-z0-9.:_-]+$")]
ImageName = Annotated[str, AfterValidator(_image)]
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Token = Annotated[SecretStr, AfterValidator(_token)]
