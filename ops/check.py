"""`./spark check`: does the endpoint do all that its users will ask of it?"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from components import catalog
from components.catalog import Task
from components.plan import models
from components.plan.engines.common import wanted
from components.scripts.contracts import Gpu, GpuBusy, Nccl, Network
from ops.pulumi import CommandError
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)

LIMIT = 120
"""Seconds for one answer."""

ANSWER = 64
"""Tokens; a reasoning model has said something by then."""

TEXTS, WORDS = 64, 100
"""Texts, and words of each, that keep a GPU busy for a moment where the model makes none. Some models for embeddings
read no more than 256 tokens (all-MiniLM-L6-v2)."""

WATCHED = 6
"""Seconds for which the GPUs are watched while an answer is made."""

BUSY = 5
"""Per cent of utilization from which a GPU counts as busy. Arbitrary: an idle one shows 0."""

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True)
class Result:
    name: str
    passed: bool
    detail: str


class Wrong(Exception):
    """A check has failed, and why."""


class Api:
    """The endpoint, as its users see it."""

    def __init__(self, base: str, model: str, key: str) -> None:
        self.base, self.model = base, model
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def post(self, path: str, *, stream: bool = False, **body: Any) -> requests.Response:
        order = {"model": self.model, **({"stream": True} if stream else {}), **body}
        answer = requests.post(f"{self.base}/{path}", json=order, headers=self.headers, timeout=LIMIT, stream=stream)
        if not answer.ok:
            raise Wrong(f"{answer.status_code}: {answer.text[:200]}")
        return answer

    def listed(self) -> str:
        answer = requests.get(f"{self.base}/models", headers=self.headers, timeout=LIMIT)
        if not answer.ok:
            raise Wrong(f"{answer.status_code}: {answer.text[:200]}")
        names = [one["id"] for one in answer.json()["data"]]
        if self.model not in names:
            raise Wrong(f"{', '.join(names)} and not {self.model}")
        return self.model

    def completion(self) -> str:
        answer = self.post("completions", prompt="The capital of France is", max_tokens=ANSWER)
        return said(answer.json()["choices"][0]["text"])

    def chat(self) -> str:
        answer = self.post("chat/completions", messages=asked("Say OK."), max_tokens=ANSWER)
        return said(text_of(answer.json()["choices"][0]["message"]))

    def streaming(self) -> str:
        """Pieces, each in its own time: an answer that comes all at once at the end is none."""
        began, pieces, first = time.monotonic(), [], 0.0
        order = asked("Count from one to twenty.")
        answer = self.post("chat/completions", stream=True, messages=order, max_tokens=ANSWER)
        for event in events(answer):
            if event["choices"] and (piece := text_of(event["choices"][0]["delta"])):
                first = first or time.monotonic() - began
                pieces.append(piece)
        if len(pieces) < 2:
            raise Wrong(f"the answer came in {len(pieces)} piece")
        return f"{len(pieces)} pieces, the first after {first * 1000:.0f} ms"

    def tool_call(self) -> str:
        order = asked("What is the weather in Paris? Use the tool.")
        message = self.post("chat/completions", messages=order, tools=[TOOL], max_tokens=1024).json()
        calls = message["choices"][0]["message"].get("tool_calls") or []
        if not calls:
            raise Wrong(f"no call, but: {text_of(message['choices'][0]['message'])[:100]!r}")
        function = calls[0]["function"]
        return f"{function['name']}({json.dumps(json.loads(function['arguments']))})"

    def embeddings(self) -> str:
        data = self.post("embeddings", input=["Paris is in France.", "Bananas are yellow."]).json()["data"]
        one, other = ([float(number) for number in each["embedding"]] for each in data)
        if not (any(one) and any(other) and all(map(math.isfinite, (*one, *other)))):
            raise Wrong("an embedding is no vector of numbers")
        return f"vectors of {len(one)} numbers"

    def rerank(self) -> str:
        documents = ["Bananas are yellow.", "Paris is in France."]
        results = self.post("rerank", query="Where is Paris?", documents=documents).json()["results"]
        scores = {result["index"]: float(result["relevance_score"]) for result in results}
        if set(scores) != {0, 1} or not all(map(math.isfinite, scores.values())):
            raise Wrong(f"the scores are not those of two documents: {results}")
        return f"scores of {scores[1]:.2f} and {scores[0]:.2f}"

    def work(self, task: Task) -> None:
        """Have an answer made that takes a moment."""
        if task == "generate":
            self.post("completions", prompt="A long story:", max_tokens=512, ignore_eos=True)
        elif task == "embed":
            self.post("embeddings", input=texts())
        else:
            self.post("rerank", query=f"{secrets.token_hex(4)}: what floats?", documents=texts())


def texts() -> list[str]:
    """Each with a beginning of its own: of one that it has read before, an engine computes nothing again."""
    return [f"{secrets.token_hex(4)} {'river ' * WORDS}" for _ in range(TEXTS)]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def text_of(message: dict[str, Any]) -> str:
    """What a message or a piece of one says; reasoning counts too."""
    keys = ("content", "reasoning_content", "reasoning")
    return next((message[key] for key in keys if message.get(key)), "")


def said(text: str) -> str:
    if not text.strip():
        raise Wrong("the answer is empty")
    return repr(text.strip()[:60])


def events(answer: requests.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        data = line.removeprefix(b"data: ")
        if line.startswith(b"data: ") and data != b"[DONE]":
            yield json.loads(data)


def api_of(cluster: Stack) -> Api:
    """Raises CommandError where the stack has no endpoint yet."""
    outputs = cluster.outputs
    if "api_base" not in outputs:
        raise CommandError(f"{cluster.stack} has not been brought up: pulumi up --stack {cluster.stack}")
    return Api(outputs["api_base"], outputs["model"], cluster.api_key())


def run(cluster: Stack) -> list[Result]:
    """All checks, in order. Raises CommandError where there is no endpoint to check, or the head can't be reached."""
    api, task = api_of(cluster), task_of(cluster)
    several = len(cluster.settings.nodes) > 1
    checks: list[tuple[str, Callable[[], str]]] = [
        ("model is listed", api.listed),
        *questions(api, task, tools=calls_tools(cluster)),
        ("every GPU works", lambda: busy(cluster, api, task)),
        *([("NCCL is on RDMA", lambda: transport(cluster))] if several else []),
    ]
    return [attempt(name, check) for name, check in checks]


def task_of(cluster: Stack) -> Task:
    """What the model is for, by what the head holds of it. Raises CommandError where that can't be asked."""
    facts, problems = cluster.facts()
    head = cluster.settings.head.name
    if head not in facts:
        raise CommandError("\n".join(str(problem) for problem in problems if problem.at == head))
    return models.served_task(cluster.settings, facts[head])


def questions(api: Api, task: Task, *, tools: bool) -> list[tuple[str, Callable[[], str]]]:
    """What users ask of a model for this."""
    if task == "embed":
        return [("embeddings", api.embeddings)]
    if task == "score":
        return [("rerank", api.rerank)]
    return [
        ("completion", api.completion),
        ("chat", api.chat),
        ("streaming", api.streaming),
        *([("tool call", api.tool_call)] if tools else []),
    ]


def attempt(name: str, check: Callable[[], str]) -> Result:
    try:
        return Result(name, True, check())
    except Wrong as wrong:
        return Result(name, False, str(wrong))
    except requests.RequestException as error:
        return Result(name, False, str(error)[:200])
    except (LookupError, TypeError, ValueError) as error:
        return Result(name, False, f"an answer of another form: {error!r}"[:200])


def calls_tools(cluster: Stack) -> bool:
    settings = cluster.settings
    entry = catalog.find(settings.model, settings.catalog)
    known = entry.served(settings.engine) if entry else catalog.Served()
    return wanted(settings, known).tool_call_parser is not None


def under_load(cluster: Stack, api: Api, task: Task) -> dict[str, list[Gpu]]:
    """Node → looks at its GPU (scripts/gpu_busy.py) while answers are made."""
    inputs = {node.name: GpuBusy(seconds=WATCHED) for node in cluster.settings.nodes}
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(cluster.ask, "gpu_busy.py", inputs)
        while not watching.done():
            api.work(task)
        return watching.result()


def busy(cluster: Stack, api: Api, task: Task) -> str:
    """Each rank's GPU while an answer is made: one that stays idle has no part in it."""
    looks = under_load(cluster, api, task)
    seen = {node: max((look["busy"] or 0 for look in found), default=0) for node, found in looks.items()}
    idle = [node for node, percent in seen.items() if percent < BUSY]
    if idle:
        raise Wrong(f"idle while an answer was made: {', '.join(idle)}")
    return ", ".join(f"{node} {percent:.0f}%" for node, percent in seen.items())


def transport(cluster: Stack) -> str:
    """From the ranks' own logs."""
    inputs = {node.name: Nccl(stack=cluster.identity) for node in cluster.settings.nodes}
    said: list[Network] = [rank for found in cluster.ask("nccl.py", inputs).values() for rank in found]
    used = {rank["host"]: rank["network"] for rank in said if rank["network"]}
    if not used:
        raise Wrong("the logs say nothing of it (NCCL_DEBUG=INFO is needed)")
    slow = sorted(host for host, network in used.items() if network == "Socket")
    if slow:
        why = "; ".join(sorted({rank["finding"] for rank in said if rank["finding"]})) or "`./spark doctor` may say why"
        raise Wrong(f"sockets ({', '.join(slow)}): ten to twenty times slower than RDMA; {why}")
    return ", ".join(f"{host} {network}" for host, network in sorted(used.items()))


def show(found: list[Result], *, as_json: bool) -> bool:
    """Whether all have passed."""
    passed = all(result.passed for result in found)
    if as_json:
        print(json.dumps({"passed": passed, "checks": [asdict(result) for result in found]}, indent=1))
        return passed
    table = Table(show_header=False)
    for result in found:
        mark = "[green]passed[/green]" if result.passed else "[red]FAILED[/red]"
        table.add_row(result.name, mark, result.detail.replace("[", r"\["))
    console.print(table)
    return passed
