"""docker:index Secret, ServiceConfig and Service, as pulumi-docker 5.2 (the bridged kreuzwerker provider) has them."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

from docker.errors import APIError, NotFound

from simulator.engine.providers import Diff, Log, Old, ProviderError, differ, differences
from simulator.engine.providers.docker_types import DAEMONS, explained, pairs, unordered
from simulator.engine.values import Properties

UPDATE_DELAY = 7.0
"""Seconds after an update in which the real provider does not look yet. Source: kreuzwerker/terraform-provider-docker,
resource_docker_service_funcs.go."""

POLL = 0.5
"""Seconds between two looks at a service's tasks."""


class Immutable:
    """Secrets and configs: Swarm changes none."""

    computed: tuple[str, ...] = ()
    sees_secrets = False

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def check(self, inputs: Properties) -> Properties:
        unknown = set(inputs) - {"name", "data", "labels"}
        if unknown:
            raise ProviderError(f"this engine does not know {self._kind}'s {', '.join(sorted(unknown))}")
        return dict(inputs)

    def diff(self, old: Old, new: Properties) -> Diff:
        # An explicit name can't exist twice.
        return differ(differences(old.inputs, new), {*old.inputs, *new}, delete_before_replace=True)

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        # Swarm's API takes base64, as the provider's `data` is.
        body = {"Name": new["name"], "Data": new["data"], "Labels": pairs(new.get("labels"), "label")}
        client = DAEMONS.client(config)
        try:
            made = client._result(client._post_json(client._url(f"/{self._kind}/create"), data=body), True)
        except APIError as error:
            raise ProviderError(f"Unable to create {self._kind[:-1]}: {explained(error)}") from None
        return made["ID"], {**new, "id": made["ID"]}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        return {**old.outputs, **new}

    def read(self, old: Old, config: Properties) -> Properties | None:
        client = DAEMONS.client(config)
        answer = client._get(client._url(f"/{self._kind}/{old.id}"))
        # 503: this node is in no Swarm any more.
        return dict(old.outputs) if answer.status_code == 200 else None

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        client = DAEMONS.client(config)
        with contextlib.suppress(NotFound):
            client._raise_for_status(client._delete(client._url(f"/{self._kind}/{old.id}")))


class Service:
    computed: tuple[str, ...] = ()
    sees_secrets = False

    def check(self, inputs: Properties) -> Properties:
        if (inputs.get("mode") or {}).get("global") and inputs.get("convergeConfig"):
            raise ProviderError('"converge_config": conflicts with mode.0.global')
        return dict(inputs)

    def diff(self, old: Old, new: Properties) -> Diff:
        # Read back: somebody scaled it, or wrote the same time otherwise.
        before = {**old.inputs, "mode": old.outputs.get("mode")}
        if "taskSpec" in old.inputs and "taskSpec" in old.outputs:
            grace = old.outputs["taskSpec"]["containerSpec"]["stopGracePeriod"]
            before["taskSpec"] = with_grace(old.inputs["taskSpec"], grace)
        replaces = {"name", "auth"} | ({"mode"} if _replicas(new) is None else set())
        return differ(differences(sets(before), sets(new)), replaces, delete_before_replace=True)

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        client = DAEMONS.client(config)
        try:
            made = client._result(client._post_json(client._url("/services/create"), data=body(new)), True)
        except APIError as error:
            raise ProviderError(f"error creating service: {explained(error)}") from None
        id_: str = made["ID"]
        try:
            self._converge(client, id_, new)
        except ProviderError:
            client.remove_service(id_)
            raise
        return id_, {**new, "id": id_}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        client = DAEMONS.client(config)
        found = client.inspect_service(old.id)
        url = client._url(f"/services/{old.id}/update")
        try:
            client._result(client._post_json(url, data=body(new), params={"version": found["Version"]["Index"]}), True)
        except APIError as error:
            raise ProviderError(f"error updating service: {explained(error)}") from None
        # Swarm has not begun yet: what runs until then is the former version.
        self._converge(client, old.id, new, delay=UPDATE_DELAY)
        return {**old.outputs, **new}

    def read(self, old: Old, config: Properties) -> Properties | None:
        try:
            found = DAEMONS.client(config).inspect_service(old.id)
        except APIError:
            return None
        replicas = found["Spec"]["Mode"]["Replicated"]["Replicas"]
        grace = short(found["Spec"]["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"])
        task = with_grace(old.outputs["taskSpec"], grace)
        return {**old.outputs, "mode": {"replicated": {"replicas": replicas}}, "taskSpec": task}

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        """Waits for the tasks' containers no longer than their stop_grace_period, then fails (measured)."""
        client = DAEMONS.client(config)
        tasks = client.tasks({"service": old.id, "desired-state": "running"})
        try:
            client.remove_service(old.id)
        except NotFound:
            return
        except APIError as error:
            raise ProviderError(f"Error deleting service: {explained(error)}") from None
        deadline = time.monotonic() + seconds(old.inputs["taskSpec"]["containerSpec"].get("stopGracePeriod", "10s"))
        while any(_state(client, task["ID"]) == "running" for task in tasks):
            if time.monotonic() > deadline:
                raise ProviderError(f"error waiting for the containers of service {old.id}: context deadline exceeded")
            time.sleep(POLL)

    def _converge(self, client: Any, id_: str, new: Properties, delay: float = 0) -> None:
        """Until the service's present version runs as often as it should. `delay`: seconds until the first look."""
        wanted = new.get("convergeConfig")
        if not wanted:
            return
        time.sleep(delay)
        deadline = time.monotonic() + seconds(wanted["timeout"])
        while True:
            found = client.inspect_service(id_)
            replicas = found["Spec"]["Mode"]["Replicated"]["Replicas"]
            updating = (found.get("UpdateStatus") or {}).get("State") == "updating"
            tasks = client.tasks({"service": id_, "desired-state": "running"})
            running = [task for task in tasks if task["Status"]["State"] == "running"]
            if len(running) == replicas and not updating:
                return
            if time.monotonic() > deadline:
                said = {task["Status"].get("Err") or task["Status"]["Message"] for task in tasks}
                raise ProviderError(f"timeout while waiting for service {id_} to converge: {'; '.join(sorted(said))}")
            time.sleep(POLL)


def with_grace(task: Properties, period: str) -> Properties:
    return {**task, "containerSpec": {**task["containerSpec"], "stopGracePeriod": period}}


def sets(value: Any) -> Any:
    """Lists in a service's specification are sets to Swarm."""
    if isinstance(value, dict):
        # The order of words on a command line is none of them.
        return {key: item if key in ("args", "commands") else sets(item) for key, item in value.items()}
    return unordered([sets(item) for item in value]) if isinstance(value, list) else value


def _replicas(inputs: Properties) -> Any:
    return ((inputs.get("mode") or {}).get("replicated") or {}).get("replicas")


def _state(client: Any, task: str) -> str:
    """A task's state; '' where Swarm has forgotten it."""
    try:
        found: str = client.inspect_task(task)["Status"]["State"]
    except NotFound:
        return ""
    return found


UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds(text: str) -> float:
    """Go's notation of a duration, of which this program uses whole seconds."""
    found = re.findall(r"(\d+)([hms])", text)
    if not found or "".join(map("".join, found)) != text:
        raise ProviderError(f"this engine reads durations of whole seconds, not {text}")
    return float(sum(int(number) * UNITS[unit] for number, unit in found))


def short(nanoseconds: int) -> str:
    """The provider's notation of a duration: Go's, less zeros at its end (shortDur)."""
    minutes, rest = divmod(nanoseconds // 10**9, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
    text = text.removesuffix("0s") if text.endswith("m0s") else text
    return text.removesuffix("0m") if text.endswith("h0m") else text


def nanoseconds(text: str) -> int:
    return int(seconds(text) * 1e9)


KNOWN = {
    "": {"name", "mode", "taskSpec", "endpointSpec", "updateConfig", "convergeConfig", "labels"},
    "taskSpec": {"containerSpec", "resources", "placement", "networksAdvanceds", "restartPolicy"},
    "containerSpec": {
        "image", "commands", "args", "env", "labels", "mounts", "configs", "secrets", "capAdds",
        "capDrops", "stopGracePeriod",
    },
}  # fmt: skip


def refuse_unknown(inputs: Properties, part: str) -> None:
    unknown = set(inputs) - KNOWN[part]
    if unknown:
        raise ProviderError(f"this engine does not know docker.Service's {part} {', '.join(sorted(unknown))}")


def body(inputs: Properties) -> dict[str, Any]:
    """The Docker API's body for /services/create and /services/ID/update."""
    task = inputs["taskSpec"]
    container = task["containerSpec"]
    for part, values in (("", inputs), ("taskSpec", task), ("containerSpec", container)):
        refuse_unknown(values, part)
    policy, reserved = task["restartPolicy"], task["resources"]["reservation"]["genericResources"]
    return {
        "Name": inputs["name"],
        "Labels": pairs(inputs.get("labels"), "label"),
        "Mode": {"Replicated": {"Replicas": int(inputs["mode"]["replicated"]["replicas"])}},
        "EndpointSpec": {"Mode": inputs["endpointSpec"]["mode"]},
        "UpdateConfig": {"Parallelism": 1, "Order": inputs["updateConfig"]["order"]},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": container["image"],
                "Command": container.get("commands"),
                "Args": container.get("args"),
                "Env": [f"{key}={value}" for key, value in sorted((container.get("env") or {}).items())],
                "Labels": pairs(container.get("labels"), "label"),
                "Mounts": [
                    {
                        "Type": mount["type"],
                        "Source": mount["source"],
                        "Target": mount["target"],
                        "ReadOnly": bool(mount.get("readOnly")),
                    }
                    for mount in container.get("mounts") or []
                ],
                "Configs": [
                    {"ConfigID": c["configId"], "ConfigName": c["configName"], "File": target(c, 0o444)}
                    for c in container.get("configs") or []
                ],
                "Secrets": [
                    {"SecretID": s["secretId"], "SecretName": s["secretName"], "File": target(s, 0o444)}
                    for s in container.get("secrets") or []
                ],
                "CapabilityAdd": container.get("capAdds"),
                "CapabilityDrop": container.get("capDrops"),
                "StopGracePeriod": nanoseconds(container["stopGracePeriod"]),
            },
            "Resources": {"Reservations": {"GenericResources": [generic(r) for r in specs(reserved)]}},
            "Placement": {"Constraints": task["placement"]["constraints"]},
            "Networks": [{"Target": network["id"]} for network in task["networksAdvanceds"]],
            "RestartPolicy": {
                "Condition": policy["condition"],
                "MaxAttempts": int(policy["maxAttempts"]),
                "Delay": nanoseconds(policy["delay"]),
                "Window": nanoseconds(policy["window"]),
            },
        },
    }


def specs(reserved: Properties) -> list[str]:
    found: list[str] = reserved["discreteResourcesSpecs"]
    return found


def generic(spec: str) -> dict[str, Any]:
    kind, _, value = spec.partition("=")
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(value)}}


def target(item: Properties, mode: int) -> dict[str, Any]:
    return {"Name": item["fileName"], "UID": "0", "GID": "0", "Mode": int(item.get("fileMode") or mode)}
