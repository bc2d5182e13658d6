"""docker:index RemoteImage, Container and Volume, as pulumi-docker 5.2 (the bridged kreuzwerker provider) has them.

The daemon is reached through one forwarded socket per Spark; the real provider spawns `ssh … docker system
dial-stdio` for each HTTP connection, with the same user, key and options, and so does this one during `./spark adopt`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from simulator.engine.providers import Diff, InitFailed, Log, Old, ProviderError, differ, differences, differing
from simulator.engine.values import Properties

CONNECT_LIMIT = 15
"""Seconds for the forwarded socket to be there."""


def listens(path: str) -> bool:
    """A socket's file is there before anybody listens on it."""
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(path) == 0


def target(host: str) -> list[str]:
    """Words of ssh that lead to `ssh://…`."""
    url = urlsplit(host)
    if url.scheme != "ssh":
        raise ProviderError(f"this engine reaches Docker by ssh:// only, not {host}")
    return ["-p", str(url.port or 22), f"{url.username}@{url.hostname}" if url.username else str(url.hostname)]


class Client(docker.APIClient):
    """Docker's own, whose connections that break later are the provider's errors."""

    _host = ""
    """Until it is made: whoever makes it has words of its own for what goes wrong then."""

    def __init__(self, host: str, path: str) -> None:
        super().__init__(base_url=f"unix://{path}", version="auto", timeout=600)
        self._host = host

    def send(self, *words: Any, **options: Any) -> Any:
        try:
            return super().send(*words, **options)
        except requests.RequestException as error:
            if not self._host:
                raise
            raise ProviderError(f"error during connect: {self._host}: {error}") from None


class Connection:
    """A Docker daemon behind SSH, by a forwarded socket that lives as long as this object is open."""

    def __init__(self, host: str, options: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="docker-")
        path = os.path.join(self._folder.name, "docker.sock")
        forward = ["-o", "ExitOnForwardFailure=yes", "-L", f"{path}:/var/run/docker.sock"]
        # `cat` ends with its input, and ssh with it: also where this process is killed.
        self._process = subprocess.Popen(
            ["ssh", *options, *forward, *target(host), "exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + CONNECT_LIMIT
        while not listens(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ProviderError(f"error during connect: {host}: {self._end().strip() or 'no answer'}")
            time.sleep(0.02)
        try:
            self.client = Client(host, path)
        except DockerException as error:
            # A Docker that is being restarted: ssh is there, and would stay.
            self._end()
            raise ProviderError(f"error during connect: {host}: {error}") from None

    def close(self) -> None:
        self.client.close()
        self._end()

    def _end(self) -> str:
        """What ssh has said."""
        self._process.terminate()
        _, said = self._process.communicate()
        self._folder.cleanup()
        return said.decode()


class Dialled:
    """The same as the real provider has it: each connection is one `ssh … docker system dial-stdio`.

    So programs/adopting.py gets to see what is asked. All else is faster by one forwarded socket.
    """

    def __init__(self, host: str, options: list[str]) -> None:
        self._argv = ["ssh", *options, *target(host), "docker", "system", "dial-stdio"]
        self._dialled: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="docker-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(self._folder.name, "docker.sock"))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        try:
            self.client = Client(host, self._listener.getsockname())
        except (DockerException, OSError) as error:
            raise ProviderError(f"error during connect: {host}: {self._words() or error}") from None

    def _serve(self) -> None:
        """Until the listener is shut down."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, open(self._log, "a") as log:
                ends = client.fileno()
                dialled = subprocess.Popen(self._argv, stdin=ends, stdout=ends, stderr=log, start_new_session=True)
            self._dialled.append(dialled)

    @property
    def _log(self) -> str:
        return os.path.join(self._folder.name, "said")

    def _words(self) -> str:
        """What ssh has said."""
        try:
            return Path(self._log).read_text().strip()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        self.client.close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for dialled in self._dialled:
            dialled.terminate()
            dialled.wait()
        self._folder.cleanup()


class Daemons:
    """Connections opened on first use, closed at the end of an operation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dialling: dict[str, threading.Lock] = {}
        self._open: dict[str, Connection | Dialled] = {}

    def client(self, config: Properties) -> Any:
        # Not with the others: what a warm start has imported of components/ every program would get (engine/warm.py).
        from components.programs import adopting

        host = config["host"]
        with self._lock:
            dialling = self._dialling.setdefault(host, threading.Lock())
        # Each by itself, as the real provider has a process for each host: one that is slow keeps no other waiting.
        with dialling:
            if host not in self._open:
                kind = Dialled if adopting.folder() else Connection
                self._open[host] = kind(host, config.get("sshOpts") or [])
            return self._open[host].client

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()


DAEMONS = Daemons()


def explained(error: APIError) -> str:
    return str(error.explanation or error)


class RemoteImage:
    computed = ("imageId", "repoDigest")
    sees_secrets = False

    def check(self, inputs: Properties) -> Properties:
        return dict(inputs)

    def diff(self, old: Old, new: Properties) -> Diff:
        return differ(differences(old.inputs, new), {"name", "platform", "pullTriggers", "triggers", "build"})

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        client, name = DAEMONS.client(config), new["name"]
        try:
            found = client.inspect_image(name)
        except ImageNotFound:
            try:
                for event in client.pull(name, stream=True, decode=True):
                    if "error" in event:
                        raise ProviderError(f"unable to pull image {name}: {event['error']}")
                found = client.inspect_image(name)
            except APIError as error:
                raise ProviderError(f"unable to pull image {name}: {explained(error)}") from None
        id_ = found["Id"] + name
        return id_, self._outputs(id_, new, found)

    @staticmethod
    def _outputs(id_: str, inputs: Properties, found: dict[str, Any]) -> Properties:
        digests = found.get("RepoDigests") or [""]
        return {**inputs, "id": id_, "imageId": found["Id"], "repoDigest": digests[0]}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        return {**old.outputs, **new}

    def read(self, old: Old, config: Properties) -> Properties | None:
        try:
            found = DAEMONS.client(config).inspect_image(old.inputs["name"])
        except ImageNotFound:
            return None
        return self._outputs(old.id, old.inputs, found)

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        if not old.inputs.get("keepLocally"):
            DAEMONS.client(config).remove_image(old.inputs["name"], force=bool(old.inputs.get("forceRemove")))


class Volume:
    computed = ("mountpoint",)
    sees_secrets = False

    def check(self, inputs: Properties) -> Properties:
        if "name" not in inputs:
            raise ProviderError("this engine wants an explicit name of a docker.Volume")
        return dict(inputs)

    def diff(self, old: Old, new: Properties) -> Diff:
        # An explicit name can't exist twice.
        return differ(differences(old.inputs, new), {*old.inputs, *new}, delete_before_replace=True)

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        made = DAEMONS.client(config).create_volume(name=new["name"], labels=pairs(new.get("labels"), "label"))
        return new["name"], {**new, "id": new["name"], "mountpoint": made["Mountpoint"]}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        return {**old.outputs, **new}

    def read(self, old: Old, config: Properties) -> Properties | None:
        try:
            return {**old.outputs, "mountpoint": DAEMONS.client(config).inspect_volume(old.id)["Mountpoint"]}
        except NotFound:
            return None

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        with contextlib.suppress(NotFound):
            DAEMONS.client(config).remove_volume(old.id)


IN_PLACE = {"restart", "maxRetryCount", "memory", "memorySwap", "cpuShares", "cpuSet", "mustRun"}
"""Changed by Docker's own update, or by starting the container."""

SILENT = {"healthcheck", "init", "tmpfs", "destroyGraceSeconds", "removeVolumes", "wait", "waitTimeout", "start"}
"""Shown as an update that makes no call to Docker (measured, pulumi-docker 5.2)."""


class Container:
    computed = ("containerLogs", "exitCode", "networkDatas")
    sees_secrets = False

    def check(self, inputs: Properties) -> Properties:
        if "name" not in inputs:
            raise ProviderError("this engine wants an explicit name of a docker.Container")
        return {"mustRun": True, **inputs}

    def diff(self, old: Old, new: Properties) -> Diff:
        # Read back: somebody stopped it.
        stopped = new.get("mustRun") and old.outputs.get("mustRun") is False
        before = {**old.inputs, "mustRun": False} if stopped or old.init_errors else old.inputs
        changes = differences(comparable(before), comparable(new))
        replaces = {*before, *new} - IN_PLACE - SILENT | ({"mustRun"} if old.init_errors else set())
        return differ(changes, replaces, delete_before_replace=True)

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        client = DAEMONS.client(config)
        try:
            made = client.create_container_from_config(body(new), new["name"])
        except APIError as error:
            raise ProviderError(f"Unable to create container: {explained(error)}") from None
        id_: str = made["Id"]
        try:
            for upload in new.get("uploads") or []:
                client.put_archive(id_, "/", archive(upload))
            client.start(id_)
        except APIError as error:
            raise InitFailed(id_, {**new, "id": id_}, f"Unable to start container: {explained(error)}") from None
        return id_, {**new, "id": id_, "exitCode": 0}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        client = DAEMONS.client(config)
        if old.outputs.get("mustRun") is False and new.get("mustRun"):
            client.start(old.id)
        if {"restart", "maxRetryCount"} & differing(old.inputs, new):
            client.update_container(old.id, restart_policy=restart_policy(new))
        return {**old.outputs, **new}

    def read(self, old: Old, config: Properties) -> Properties | None:
        try:
            found = DAEMONS.client(config).inspect_container(old.id)
        except NotFound:
            return None
        return {**old.outputs, "mustRun": bool(found["State"]["Running"])}

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        client = DAEMONS.client(config)
        with contextlib.suppress(NotFound):
            client.stop(old.id, timeout=int(old.inputs.get("destroyGraceSeconds") or 0))
            client.remove_container(old.id, v=old.inputs.get("removeVolumes", True), force=True)


ORDERED = {"command", "entrypoints"}


def comparable(inputs: Properties) -> Properties:
    return {key: value if key in ORDERED else unordered(value) for key, value in inputs.items()}


def unordered(value: Any) -> Any:
    """Environment, labels, ulimits and the like are sets to Docker."""
    if isinstance(value, list) and all(isinstance(item, (str, dict)) for item in value):
        return sorted(value, key=_written)
    return value


def _written(value: Any) -> str:
    """The same for equal values: a mapping's keys come in any order."""
    if isinstance(value, dict):
        return repr(sorted((key, _written(item)) for key, item in value.items()))
    return repr(value)


def pairs(items: list[dict[str, str]] | None, key: str) -> dict[str, str]:
    return {item[key]: item["value"] for item in items or []}


def restart_policy(inputs: Properties) -> Any:
    return {"Name": inputs.get("restart", "no"), "MaximumRetryCount": int(inputs.get("maxRetryCount") or 0)}


KNOWN = {
    "name", "image", "command", "entrypoints", "envs", "networkMode", "ipcMode", "pidMode", "gpus", "init",
    "privileged",
    "shmSize", "ulimits", "capabilities", "devices", "volumes", "uploads", "labels", "restart", "maxRetryCount",
    "destroyGraceSeconds", "mustRun", "removeVolumes", "user", "hostname", "workingDir", "groupAdds",
    "securityOpts",
}  # fmt: skip


def body(inputs: Properties) -> dict[str, Any]:
    """The Docker API's body for /containers/create."""
    unknown = set(inputs) - KNOWN
    if unknown:
        raise ProviderError(f"this engine does not know docker.Container's {', '.join(sorted(unknown))}")
    host: dict[str, Any] = {
        "RestartPolicy": restart_policy(inputs),
        "NetworkMode": inputs.get("networkMode", "bridge"),
        "IpcMode": inputs.get("ipcMode", "private"),
        "PidMode": inputs.get("pidMode", ""),
        "Privileged": bool(inputs.get("privileged")),
        "Init": bool(inputs.get("init")),
        "CapAdd": (inputs.get("capabilities") or {}).get("adds"),
        "CapDrop": (inputs.get("capabilities") or {}).get("drops"),
        "SecurityOpt": inputs.get("securityOpts"),
        "GroupAdd": inputs.get("groupAdds"),
        "Ulimits": [{"Name": u["name"], "Soft": u["soft"], "Hard": u["hard"]} for u in inputs.get("ulimits") or []],
        "Binds": [bind(volume) for volume in inputs.get("volumes") or []],
        "Devices": [
            {
                "PathOnHost": device["hostPath"],
                "PathInContainer": device.get("containerPath") or device["hostPath"],
                "CgroupPermissions": device.get("permissions") or "rwm",
            }
            for device in inputs.get("devices") or []
        ],
    }
    if inputs.get("shmSize"):
        host["ShmSize"] = int(inputs["shmSize"]) << 20
    if inputs.get("gpus"):
        if inputs["gpus"] != "all":
            raise ProviderError("this engine knows gpus=all only")
        host["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    return {
        "Image": inputs["image"],
        "Cmd": inputs.get("command"),
        "Entrypoint": inputs.get("entrypoints"),
        "Env": inputs.get("envs"),
        "Labels": pairs(inputs.get("labels"), "label"),
        "User": inputs.get("user", ""),
        "Hostname": inputs.get("hostname", ""),
        "WorkingDir": inputs.get("workingDir", ""),
        "HostConfig": host,
    }


def bind(volume: dict[str, Any]) -> str:
    source = volume.get("hostPath") or volume["volumeName"]
    return f"{source}:{volume['containerPath']}" + (":ro" if volume.get("readOnly") else "")


def archive(upload: dict[str, Any]) -> bytes:
    """A tar with one file and the directories above it."""
    content = base64.b64decode(upload["contentBase64"]) if upload.get("contentBase64") else upload["content"].encode()
    path = upload["file"].lstrip("/")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(content), 0o744 if upload.get("executable") else 0o644
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
