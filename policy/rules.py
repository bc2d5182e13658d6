"""The rules: what is wrong with one resource, from its type and its inputs. Pure; standard library only.

__main__.py gives them to Pulumi, and `./spark policy` to those who have no policy packs at hand (ops/policy.py).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Inputs = Mapping[str, Any]

CONTAINER, SERVICE = "docker:index/container:Container", "docker:index/service:Service"
IMAGE, PROVIDER = "docker:index/remoteImage:RemoteImage", "pulumi:providers:docker"
COMMAND = "command:remote:Command"

API_KEY = "/run/api-key"
"""File that the command of an engine names where clients must send a key (components/plan/engines/)."""

MASKED = "[secret]"
"""What Pulumi shows in place of a secret: nothing can be said of it."""


@dataclass(frozen=True)
class Rule:
    name: str
    text: str
    mandatory: bool
    """False: it is said, and the run goes on."""

    wrong: Callable[[str, Inputs], Iterator[str]]
    """(type, inputs) → what is wrong, and what to do."""


def privileged(type_: str, inputs: Inputs) -> Iterator[str]:
    if type_ == CONTAINER and inputs.get("privileged"):
        yield "is privileged: pulumi config set --path containers.privileged false"


def confined(type_: str, inputs: Inputs) -> Iterator[str]:
    if type_ == CONTAINER and not inputs.get("privileged"):
        capabilities = inputs.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drops") or ()):
            yield "keeps capabilities that it was not given"
        if not any(option.startswith("no-new-privileges") for option in inputs.get("securityOpts") or ()):
            yield "may gain rights by what it starts"
    if type_ == SERVICE and "ALL" not in (_task(inputs).get("capDrops") or ()):
        yield "keeps capabilities that it was not given"


def mounted(type_: str, inputs: Inputs) -> Iterator[str]:
    """Of the Spark's own files; volumes are a container's own."""
    if type_ == CONTAINER:
        found = [(one.get("hostPath"), one.get("readOnly")) for one in inputs.get("volumes") or ()]
    elif type_ == SERVICE:
        mounts = _task(inputs).get("mounts") or ()
        found = [(one.get("source"), one.get("readOnly")) for one in mounts if one.get("type") != "volume"]
    else:
        return
    for path, read_only in found:
        if path and path.endswith("docker.sock"):
            yield f"has Docker's socket, {path}: whoever is in it is root on the Spark"
        elif path and not read_only:
            yield f"may write to the Spark's {path}"


def open_api(type_: str, inputs: Inputs) -> Iterator[str]:
    """An engine's API that others reach and that asks for no key."""
    if type_ == CONTAINER:
        words = [*(inputs.get("command") or ())]
        labels = {label["label"]: label["value"] for label in inputs.get("labels") or ()}
    elif type_ == SERVICE:
        words = [*(_task(inputs).get("args") or ())]
        labels = {label["label"]: label["value"] for label in _task(inputs).get("labels") or ()}
    else:
        return
    # The file itself is among uploads, which are a secret as a whole.
    guarded = any(API_KEY in word for word in words)
    if labels.get("dgx-spark.component") != "server" or labels.get("dgx-spark.rank") != "0" or guarded:
        return
    for host in (word.removeprefix("--host=") for word in words if str(word).startswith("--host=")):
        if not ipaddress.ip_address(host).is_loopback:
            yield (
                f"serves on {host} and asks for no key: pulumi config set --secret apiKey …, or serving.host 127.0.0.1 "
                "with the gateway in front"
            )


def pinned_image(type_: str, inputs: Inputs) -> Iterator[str]:
    name = str(inputs.get("name", ""))
    if type_ == IMAGE and "@sha256:" not in name:
        yield f"{name} is whatever its registry gives out on the day: name it with its digest, NAME:TAG@sha256:…"


def pinned_host_key(type_: str, inputs: Inputs) -> Iterator[str]:
    if type_ == COMMAND:
        connection = inputs.get("connection") or {}
        if connection == MASKED:
            return
        ways = [connection, *([connection["proxy"]] if connection.get("proxy") else [])]
        for way in ways:
            if not way.get("hostKey"):
                yield f"talks to {way.get('host')} whoever that is: ssh.hostKeys"
    if type_ == PROVIDER and str(inputs.get("host", "")).startswith("ssh://"):
        options = inputs.get("sshOpts") or ()
        words = json.loads(options) if isinstance(options, str) else options
        if "StrictHostKeyChecking=yes" not in words:
            yield f"talks to {inputs['host']} whoever that is: ssh.hostKeys"


def _task(inputs: Inputs) -> Inputs:
    found: Inputs = (inputs.get("taskSpec") or {}).get("containerSpec") or {}
    return found


RULES = (
    Rule("no-privileged", "No container is privileged.", True, privileged),
    Rule("confined", "Containers have the capabilities that they were given, and gain none.", True, confined),
    Rule("no-writable-mounts", "Containers write to no file of a Spark and have no Docker socket.", True, mounted),
    Rule("no-open-api", "An API that others reach asks for a key.", True, open_api),
    Rule("pinned-host-keys", "Sparks and jump hosts are known by their keys.", True, pinned_host_key),
    Rule("pinned-images", "Images are named by their digest.", False, pinned_image),
)


def violations(type_: str, inputs: Inputs) -> Iterator[tuple[Rule, str]]:
    for rule in RULES:
        for text in rule.wrong(type_, inputs):
            yield rule, text
