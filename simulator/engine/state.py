"""The checkpoint: what exists, in Pulumi's own version 3 format, below a `file://` backend."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from simulator.engine.crypter import Crypter
from simulator.engine.project import UserError
from simulator.engine.values import SECRET, SIGNATURE, Properties, Secret, plain

HERMETIC = "hermetic"
"""In place of the Pulumi CLI's version in a state's manifest."""

STACK_TYPE = "pulumi:pulumi:Stack"


@dataclass
class Resource:
    """One resource in the state."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    provider: str = ""
    """`<urn>::<id>` of the provider resource."""

    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    protect: bool = False
    retain_on_delete: bool = False
    deleted_with: str = ""
    delete: bool = False
    """Replaced already; its deletion is pending."""

    pending_replacement: bool = False
    """Deleted already; its replacement is pending."""

    init_errors: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[1]

    @property
    def is_provider(self) -> bool:
        return self.type.startswith("pulumi:providers:")


FIELDS = {
    "urn": "urn",
    "type": "type",
    "custom": "custom",
    "id": "id",
    "parent": "parent",
    "provider": "provider",
    "dependencies": "dependencies",
    "property_dependencies": "propertyDependencies",
    "protect": "protect",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "delete": "delete",
    "pending_replacement": "pendingReplacement",
    "init_errors": "initErrors",
    "additional_secret_outputs": "additionalSecretOutputs",
}


class Store:
    """State file of one stack."""

    def __init__(self, project: str, stack: str) -> None:
        self.project, self.stack = project, stack
        self.path = backend() / "stacks" / project / f"{stack}.json"
        self._locks = backend() / "locks" / "organization" / project / stack

    def exists(self) -> bool:
        return self.path.exists()

    def load(self, crypter: Crypter) -> list[Resource]:
        return self.parse(self.deployment(), crypter)

    def deployment(self) -> dict[str, Any]:
        """Raises UserError for a stack that is not there, and for one of the Pulumi CLI's."""
        if not self.exists():
            raise UserError(f"no stack named '{self.stack}' found")
        found: dict[str, Any] = json.loads(self.path.read_text())["checkpoint"].get("latest") or {}
        version = found.get("manifest", {}).get("version", HERMETIC)
        if version != HERMETIC:
            # Its providers keep more in the state than those here: everything would be replaced.
            raise UserError(
                f"stack '{self.stack}' was brought up by the Pulumi CLI ({version}), and only that can go on with it; "
                "this is the simulator's hermetic engine"
            )
        return found

    @staticmethod
    def parse(deployment: dict[str, Any], crypter: Crypter) -> list[Resource]:
        made = []
        for raw in deployment.get("resources") or []:
            known = {ours: raw[theirs] for ours, theirs in FIELDS.items() if theirs in raw}
            inputs, outputs = (_open(raw.get(key) or {}, crypter) for key in ("inputs", "outputs"))
            made.append(Resource(**known, inputs=inputs, outputs=outputs))
        return made

    def save(self, resources: list[Resource], crypter: Crypter, pending: list[dict[str, str]] | None = None) -> None:
        rows = []
        for resource in resources:
            row = {theirs: value for ours, theirs in FIELDS.items() if (value := getattr(resource, ours))}
            row["custom"] = resource.custom
            row["inputs"], row["outputs"] = _seal(resource.inputs, crypter), _seal(resource.outputs, crypter)
            rows.append(row)
        deployment = {
            "manifest": {"magic": "simulated", "version": HERMETIC},
            "secrets_providers": {"type": "passphrase", "state": {"salt": crypter.state}},
            "resources": rows,
            "pending_operations": pending or [],
        }
        self.write(deployment)

    def write(self, deployment: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        checkpoint = {"stack": f"organization/{self.project}/{self.stack}", "latest": deployment}
        partial.write_text(json.dumps({"version": 3, "checkpoint": checkpoint}, indent=1))
        os.replace(partial, self.path)

    def remove(self) -> None:
        self.path.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other run of the stack meanwhile; a run that is killed leaves its lock. Raises UserError.

        As the CLI's, of a backend of files: pkg/backend/diy/lock.go.
        """
        own = self._lock()
        own.parent.mkdir(parents=True, exist_ok=True)
        by = {"pid": os.getpid(), "username": getpass.getuser(), "hostname": socket.gethostname()}
        own.write_text(json.dumps({**by, "timestamp": datetime.now().astimezone().isoformat(timespec="seconds")}))
        try:
            self._refuse_others(own)
            yield
        finally:
            self.unlock()

    def _lock(self) -> Path:
        return self._locks / f"{os.getpid()}.json"

    def _refuse_others(self, own: Path) -> None:
        others = [path for path in sorted(self._locks.glob("*.json")) if path != own]
        if not others:
            return
        lines = [
            f"the stack is currently locked by {len(others)} lock(s). Either wait for the other process(es) to end or "
            "delete the lock file with `pulumi cancel`."
        ]
        for path in others:
            by = json.loads(path.read_text())
            who = f"{by['username']}@{by['hostname']} (pid {by['pid']}) at {by['timestamp']}"
            lines.append(f"  file://{path}: created by {who}")
        raise UserError("\n".join(lines))

    def unlock(self) -> None:
        """Take this process' lock away."""
        self._lock().unlink(missing_ok=True)

    def cancel(self) -> None:
        """Take all locks away."""
        for path in self._locks.glob("*.json"):
            path.unlink(missing_ok=True)


def backend() -> Path:
    """The folder behind PULUMI_BACKEND_URL (`file://…`), by default ~ as with `pulumi login --local`.

    Raises UserError where it is not there, as the CLI does.
    """
    url = os.environ.get("PULUMI_BACKEND_URL", "file://~")
    if not url.startswith("file://"):
        raise UserError(f"this engine keeps state in files only: PULUMI_BACKEND_URL={url}")
    folder = Path(url.removeprefix("file://")).expanduser()
    if not folder.exists():
        raise UserError(f'unable to open state directory "{url}": stat {folder}: no such file or directory')
    return folder / ".pulumi"


def _seal(value: Any, crypter: Crypter) -> Any:
    if isinstance(value, Secret):
        return {SIGNATURE: SECRET, "ciphertext": crypter.encrypt(json.dumps(plain(value.value)))}
    if isinstance(value, dict):
        return {key: _seal(item, crypter) for key, item in value.items()}
    return [_seal(item, crypter) for item in value] if isinstance(value, (list, tuple)) else value


def _open(value: Any, crypter: Crypter) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return Secret(json.loads(crypter.decrypt(value["ciphertext"])))
        return {key: _open(item, crypter) for key, item in value.items()}
    return [_open(item, crypter) for item in value] if isinstance(value, list) else value
