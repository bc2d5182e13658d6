"""`./spark check`, and the load of `./spark doctor`: what a model is asked, by what it is for. The stand-ins' own HTTP
server answers."""

import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.problems import Problem
from components.scripts.contracts import Gpu
from ops import check, doctor
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import Stack
from tests.unit.build import IDENTITY, facts, settings

STANDINS = Path(__file__).parent.parent.parent / "simulator" / "standins"


def of_files(repo: str, config: dict[str, Any], *paths: str) -> dict[str, Any]:
    """Facts of a Spark that has this model's weights."""
    files = [{"path": path, "size": 700, "sha256": None} for path in ("config.json", *paths)]
    model = {"repo": repo, "revision": None, "commit": "c0ffee", "files": files}
    record = {"spec": "", "generation": "", "intact": True, "model": model}
    return {"records": {"weights": record}, "model_config_": config}


NOT_IN_THE_CATALOG = {
    "someone/writes": of_files("someone/writes", {}),
    "someone/embeds": of_files("someone/embeds", {}, "modules.json"),
    "someone/ranks": of_files("someone/ranks", {"architectures": ["BertForSequenceClassification"]}),
}


SERVER = {
    "id": "a", "name": "server", "running": True,
    "labels": {"dgx-spark.stack": IDENTITY.full, "dgx-spark.component": "server"},
}  # fmt: skip
DOCKER = {"version": "28.0.0", "runtimes": ["nvidia"], "containers": [SERVER]}

HEALTHY = {
    "kernel": "6.11", "system": "DGX OS 7", "memlock": -1, "foreign": [], "pings": {}, "ports": {}, "guard": "earlyoom",
    "wall": {"active": False, "text": ""}, "swarm": {"state": "inactive"}, "containers": [], "texts": {},
}  # fmt: skip
"""What scripts/doctor.py says."""


@dataclass(frozen=True)
class Served(Stack):
    """A stack that serves; its GPUs are busy from when the endpoint has done something for somebody."""

    heard: set[tuple[str, int]] = field(default_factory=set)
    """Paths, and what they answered."""

    answered: threading.Event = field(default_factory=threading.Event)
    away: tuple[str, ...] = ()

    def facts(self):
        given = NOT_IN_THE_CATALOG.get(self.settings.model, {})
        names = enumerate((node.name for node in self.settings.nodes), 1)
        every = {name: facts(number, docker=DOCKER, **given) for number, name in names}
        found = {name: node for name, node in every.items() if name not in self.away}
        return found, [Problem(name, "does not answer", "switch it on") for name in self.away]

    def api_key(self):
        return ""

    def ask(self, script, inputs, **how):
        if unknown := set(inputs) & set(self.away):
            raise CommandError(f"{unknown} does not answer")
        if script == "doctor.py":
            return {name: {**HEALTHY, "time": time.time()} for name in inputs}
        self.answered.clear()
        self.answered.wait()
        return dict.fromkeys(inputs, [Gpu(busy=95, clock=2400, power=80, temperature=60)] * 3)


@pytest.fixture
def serving(monkeypatch):
    """Serves a model for a task on so many Sparks."""
    monkeypatch.syspath_prepend(str(STANDINS))
    from standin import server as standin
    from standin.knobs import Knobs

    running = []
    monkeypatch.setattr(standin, "knobs", Knobs)

    def make(task, model, *, count=1, vector=None, away=()):
        if vector:
            monkeypatch.setattr(standin, "vector", lambda text: vector)
        stack = Served(Project(None, {}), "test", settings(count, model=model), away=away)

        class Handler(standin.Handler):
            state = standin.State(names=["m"], keys=[], max_model_len=4096, step=lambda: None, task=task, tools=True)

            def log_request(self, code="-", size="-"):
                stack.heard.add((self.path, code))

            def do_POST(self):
                super().do_POST()
                stack.answered.set()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # In place of what Pulumi would be asked for.
        stack.__dict__["outputs"] = {
            "stack": "organization/dgx-spark/test",
            "api_base": f"http://127.0.0.1:{server.server_port}/v1",
            "model": "m",
        }
        return stack

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


POOLING = [
    ("embed", "qwen3-vl-embedding-2b", "embeddings", "vectors of 32 numbers"),
    ("embed", "someone/embeds", "embeddings", "vectors of 32 numbers"),
    ("score", "qwen3-vl-reranker-2b", "rerank", "scores of 0.50 and 0.00"),
    ("score", "someone/ranks", "rerank", "scores of 0.50 and 0.00"),
]


@pytest.mark.parametrize(("task", "model", "name", "detail"), POOLING)
def test_a_pooling_model_is_asked_and_put_to_work_at_its_own_endpoint(serving, task, model, name, detail):
    stack = serving(task, model)
    assert check.run(stack) == [
        check.Result("model is listed", True, "m"),
        check.Result(name, True, detail),
        check.Result("every GPU works", True, "spark-1 95%"),
    ]
    assert stack.heard == {("/v1/models", 200), (f"/v1/{name}", 200)}


@pytest.mark.parametrize(("model", "tools"), [("someone/writes", []), ("gpt-oss-120b", ["tool call"])])
def test_a_model_that_writes_is_asked_for_text(serving, model, tools):
    found = check.run(serving("generate", model))
    names = ["model is listed", "completion", "chat", "streaming", *tools, "every GPU works"]
    assert [(one.name, one.passed) for one in found] == [(name, True) for name in names]


@pytest.mark.parametrize("vector", [[0.0] * 32, [None] * 32, [float("nan")] * 32])
def test_a_vector_of_nothing_fails(serving, vector):
    (_, embeddings, _) = check.run(serving("embed", "someone/embeds", vector=vector))
    assert not embeddings.passed


def test_a_head_that_is_away_is_named(serving):
    with pytest.raises(CommandError, match="spark-1: does not answer"):
        check.run(serving("generate", "gpt-oss-120b", away=("spark-1",)))


def clocks(stack):
    findings, _ = doctor.examine(stack)
    return [finding for finding in findings if finding.check == "GPU clock"]


@pytest.mark.parametrize("task", ["embed", "score"])
def test_doctor_sees_the_clocks_of_a_pooling_models_gpus(serving, task):
    stack = serving(task, "someone/embeds" if task == "embed" else "someone/ranks")
    assert clocks(stack) == [doctor.Finding("spark-1", "GPU clock", "ok", "2400 MHz, 80 W, 60 °C under load")]


def test_doctor_says_what_it_finds_where_a_spark_is_away(serving):
    assert clocks(serving("generate", "gpt-oss-120b", count=2, away=("spark-2",))) == []
