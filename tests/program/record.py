"""Runs the real `__main__.py`, or another program, in this process, on mocks, and keeps every registration as it was
sent."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.mocks import MockCallArgs, MockEngine, MockMonitor, MockResourceArgs, Mocks

from components import planning
from components.plan import models
from components.resources import ending
from simulator.engine.values import plain, struct_from_wire
from tests.unit.build import KEY, MODEL, facts

ROOT = Path(__file__).parent.parent.parent
IMAGE_ID = "sha256:1111"


class Answers(Mocks):
    """Resources are made at once."""

    def __init__(self, count: int, **of_last: Any) -> None:
        self.facts = {f"spark-{n}": facts(n, sudo=True) for n in range(1, count + 1)}
        if of_last:
            self.facts[f"spark-{count}"] = facts(count, **of_last)

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ == "docker:index/remoteImage:RemoteImage":
            outputs["imageId"] = IMAGE_ID
        if args.typ == "command:remote:Command":
            outputs["stdout"] = self._said(args.name, args.inputs)
        return f"{args.name}-id", outputs

    @staticmethod
    def _said(name: str, inputs: Mapping[str, Any]) -> str:
        if "image-with" in name:
            added = json.loads(inputs["stdin"])["add"]
            image = "sha256:with-ray" if added else IMAGE_ID
            return json.dumps(
                {"image": image, "base": IMAGE_ID, "content": "c", "base_content": "b", "ray": added.get("ray")}
            )
        if name.endswith("swarm-manager"):
            return json.dumps({"node": "id-of-the-head", "address": "10.0.0.1", "token": "SWMTKN-1"})
        return "ssh-ed25519 AAAA dgx-spark:key"

    def call(self, args: MockCallArgs) -> dict[str, Any]:
        assert args.token == "pulumi:pulumi:readStackResourceOutputs"
        return {"outputs": {}}

    def stand_in(self, monkeypatch: Any) -> None:
        """For the Sparks, which remote/ask.py would reach."""
        for module in (planning.ask, planning.hold):
            monkeypatch.setattr(module, "dial", lambda settings: {node.name for node in settings.nodes})
        monkeypatch.setattr(planning.ask, "ask", self._ask)

    def _ask(self, lines: Any, questions: Mapping[str, str], *, stay: bool) -> dict[str, dict[str, Any]]:
        assert lines == questions.keys() == self.facts.keys()
        answers = {}
        for name, known in self.facts.items():
            values = known.model_dump()
            values["model_config"] = values.pop("model_config_")
            answers[name] = {"facts": values}
        return answers


class Recorder(MockMonitor):
    """Keeps the raw requests: they hold the options that mocks do not show."""

    def __init__(self, mocks: Mocks) -> None:
        super().__init__(mocks)
        self.requests: list[Any] = []
        self.outputs: list[Any] = []

    def RegisterResource(self, request: Any) -> Any:
        self.requests.append(request)
        return super().RegisterResource(request)

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self.outputs.append(request)
        return super().RegisterResourceOutputs(request)


class Registered:
    """What one run registered, by name."""

    def __init__(self, requests: list[Any], outputs: list[Any], exports: dict[str, Any], logs: list[Any]) -> None:
        self.requests = {request.name: request for request in requests}
        self.outputs = {request.urn.rsplit("::", 1)[1]: struct_from_wire(request.outputs) for request in outputs}
        """Component → what it hands out."""

        self.exports = exports
        """What the stack hands out: plain values, and outputs of resources."""

        self.logs = [(request.urn.rsplit("::", 1)[-1], request.message) for request in logs]
        """(resource or '', what is said of it)"""

    def inputs(self, name: str) -> dict[str, Any]:
        """Without secret wrappers."""
        found: dict[str, Any] = plain(struct_from_wire(self.requests[name].object))
        return found

    def raw(self, name: str) -> dict[str, Any]:
        return struct_from_wire(self.requests[name].object)

    def of_type(self, type_: str) -> list[str]:
        return sorted(name for name, request in self.requests.items() if request.type == type_)

    def after(self, name: str) -> set[str]:
        """Names of what this resource waits for."""
        return {urn.rsplit("::", 1)[1] for urn in self.requests[name].dependencies}

    def before(self, name: str) -> set[str]:
        """Names of all that must be there before it, whatever is between them."""
        found: set[str] = set()
        new = {name}
        while new := {other for one in new for other in self.after(one)} - found:
            found |= new
        return found

    def order(self, *types: str) -> dict[str, set[str]]:
        """Resource → what it waits for, without what that waits for already; of these types alone."""
        names = {name for name, request in self.requests.items() if request.type.startswith(types)}
        every = {name: self.before(name) & names for name in names}
        return {
            name: {one for one in first if not any(one in every[other] for other in first)}
            for name, first in every.items()
        }


def main() -> None:
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")


def login(tmp_path: Path, count: int) -> dict[str, Any]:
    """`ssh` of so many Sparks, with a key file that is there."""
    key = tmp_path / "id_ed25519"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n")
    return {"hostKeys": {f"spark-{n}": KEY for n in range(1, count + 1)}, "privateKeyFile": str(key)}


def run(
    tmp_path: Path,
    monkeypatch: Any,
    count: int = 2,
    *,
    program: Callable[[], None] = main,
    of_last: dict[str, Any] | None = None,
    encrypted: tuple[str, ...] = (),
    **config: Any,
) -> Registered:
    """One `pulumi up` of `count` Sparks on mocks. `encrypted`: keys of which some part is."""
    raw: dict[str, Any] = {
        "nodes": [{"name": f"spark-{n}", "host": f"10.0.0.{n}"} for n in range(1, count + 1)],
        "ssh": login(tmp_path, count),
        "engine": "vllm",
        "model": "gpt-oss-120b",
        **config,
    }
    texts = {f"dgx-spark:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in raw.items()}
    mocks = Answers(count, **(of_last or {}))
    recorder = Recorder(mocks)
    pulumi.runtime.set_mocks(mocks, project="dgx-spark", stack="test", preview=False, monitor=recorder)
    pulumi.runtime.set_all_config(
        texts, [f"dgx-spark:{key}" for key in ("hfToken", "apiKey", "gatewayKeys", *encrypted)]
    )
    exports: dict[str, Any] = {}
    logs: list[Any] = []
    by_the_sdk = MockEngine.Log

    def log(engine: MockEngine, request: Any) -> None:
        logs.append(request)
        by_the_sdk(engine, request)

    monkeypatch.setattr(MockEngine, "Log", log)
    monkeypatch.setattr(pulumi, "export", exports.__setitem__)
    mocks.stand_in(monkeypatch)
    monkeypatch.setattr(planning.hold, "hold", lambda lines, stack: [])
    # This process is that of the tests, too.
    monkeypatch.setattr(ending, "quietly", lambda: None)
    monkeypatch.setattr(planning, "model", lambda settings, head: replace(MODEL, repo=models.repository(settings)))
    monkeypatch.setattr(planning, "_look_up", lambda settings, repo, revision: replace(MODEL, repo=repo))

    pulumi.runtime.test(program)()
    return Registered(recorder.requests, recorder.outputs, exports, logs)
