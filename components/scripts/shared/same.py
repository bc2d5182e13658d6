"""Is a container what Pulumi would make? Of `docker inspect` and the inputs of a docker:index/container:Container."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_DOCKERS = {
    "name", "uploads", "image", "mustRun", "start", "attach", "logs", "wait", "waitTimeout", "destroyGraceSeconds",
    "removeVolumes", "containerReadRefreshTimeoutMilliseconds", "__defaults", "__internal",
}  # fmt: skip
"""Compared elsewhere, or for the provider alone."""


def merged(own: Iterable[str], images: Iterable[str]) -> list[str]:
    """Variables as Docker puts them together: the image's, but for those that are given."""
    given = {text.partition("=")[0]: text for text in own}
    return sorted({**{text.partition("=")[0]: text for text in images}, **given}.values())


def pairs(items: Any, *keys: str) -> list[tuple]:
    return sorted(tuple(str(item.get(key)) for key in keys) for item in items or [])


def capabilities(names: Any) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in names or [])


def binds(items: Any) -> list[tuple]:
    parts = (item.split(":") for item in items or [])
    return sorted((source, target, "ro" in ",".join(how).split(",")) for source, target, *how in parts)


def started(wanted: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[list, list]:
    """(entrypoint, command). Source: moby, daemon/commit.go, merge."""
    entry, command = wanted.get("entrypoints") or [], wanted.get("command") or []
    return (entry, command) if entry else (image.get("Entrypoint") or [], command or image.get("Cmd") or [])


def as_wanted(wanted: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """Input → what Docker would have. `image`: its Config."""
    entry, command = started(wanted, image)
    labels = {item["label"]: item["value"] for item in wanted.get("labels") or []}
    may = wanted.get("capabilities") or {}
    volumes = wanted.get("volumes") or []
    return {
        "entrypoints": entry,
        "command": command,
        "envs": merged(wanted.get("envs") or [], image.get("Env") or []),
        "labels": {**(image.get("Labels") or {}), **labels},
        "networkMode": wanted.get("networkMode") or "bridge",
        "ipcMode": wanted.get("ipcMode") or "private",
        "pidMode": wanted.get("pidMode") or "",
        "gpus": wanted.get("gpus") or "",
        "init": bool(wanted.get("init")),
        "privileged": bool(wanted.get("privileged")),
        "restart": wanted.get("restart") or "no",
        "maxRetryCount": int(wanted.get("maxRetryCount") or 0),
        "capabilities": (capabilities(may.get("adds")), capabilities(may.get("drops"))),
        "securityOpts": sorted(wanted.get("securityOpts") or []),
        "devices": pairs(wanted.get("devices"), "hostPath", "containerPath", "permissions"),
        "ulimits": sorted((one["name"], int(one["soft"]), int(one["hard"])) for one in wanted.get("ulimits") or []),
        "volumes": sorted(
            (one.get("hostPath") or one.get("volumeName"), one["containerPath"], bool(one.get("readOnly")))
            for one in volumes
        ),
        "shmSize": int(wanted.get("shmSize") or 0) << 20,
    }


def as_found(about: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The same of `docker inspect`; where nothing is wanted, Docker's own choice is as good."""
    config, host = about["Config"], about["HostConfig"]
    policy = host.get("RestartPolicy") or {}
    # What the daemon adds of its own where the Spark's IPC is shared.
    options = set(host.get("SecurityOpt") or []) - ({"label=disable"} - set(wanted.get("securityOpts") or []))
    return {
        "entrypoints": config.get("Entrypoint") or [],
        "command": config.get("Cmd") or [],
        "envs": sorted(config.get("Env") or []),
        "labels": config.get("Labels") or {},
        "networkMode": {"default": "bridge"}.get(host["NetworkMode"], host["NetworkMode"]),
        "ipcMode": {"shareable": "private", "": "private"}.get(host["IpcMode"], host["IpcMode"]),
        "pidMode": host.get("PidMode") or "",
        "gpus": gpus(host.get("DeviceRequests")),
        "init": bool(host.get("Init")),
        "privileged": bool(host.get("Privileged")),
        "restart": policy.get("Name") or "no",
        "maxRetryCount": int(policy.get("MaximumRetryCount") or 0),
        "capabilities": (capabilities(host.get("CapAdd")), capabilities(host.get("CapDrop"))),
        "securityOpts": sorted(options),
        "devices": pairs(host.get("Devices"), "PathOnHost", "PathInContainer", "CgroupPermissions"),
        "ulimits": sorted((one["Name"], one["Soft"], one["Hard"]) for one in host.get("Ulimits") or []),
        "volumes": binds(host.get("Binds")),
        "shmSize": int(host.get("ShmSize") or 0) if wanted.get("shmSize") else 0,
    }


def gpus(requests: Any) -> str:
    """As the provider's input has it."""
    if not requests:
        return ""
    (first, *more) = requests
    every = first.get("Count") == -1 and any("gpu" in one for one in first.get("Capabilities") or [])
    return "all" if every and not more else "others"


def content(upload: Mapping[str, Any]) -> bytes:
    """What the provider puts in a file: its inputs have it as text or in base64."""
    encoded = upload.get("contentBase64")
    return base64.b64decode(encoded) if encoded else str(upload["content"]).encode()


def differences(
    wanted: Mapping[str, Any], about: Mapping[str, Any], image: Mapping[str, Any], file: Callable[[str], bytes | None]
) -> list[str]:
    """Inputs in which the container is not as wanted; [] where it is, and runs. No values: they may be secrets.

    about   of the container, by `docker inspect`
    image   of the image that is wanted, the same
    file    content of a file in the container; None where there is none
    """
    then, now = as_wanted(wanted, image.get("Config") or {}), as_found(about, wanted)
    unknown = [key for key, value in wanted.items() if value and key not in then and key not in NOT_DOCKERS]
    found = [key for key in then if then[key] != now[key]]
    others = [] if about["Image"] == image.get("Id") else ["image"]
    stopped = [] if about["State"]["Running"] else ["not running"]
    files = [one["file"] for one in wanted.get("uploads") or [] if file(one["file"]) != content(one)]
    return sorted([*found, *unknown, *others, *stopped, *files])
