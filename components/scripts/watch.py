"""Watch this Spark's containers until told to stop; runs on the Spark while an endpoint comes up.

stdin   JSON: stack, components [label of a container], lines (how many of a log to report), several (Sparks), and on
        the head also api (base URL on this Spark), model, key (bearer token or ''), record (written when ready),
        task (`generate`, `embed`, `score`), template (the model has a chat template for sure), check (the answer must
        be the right one)
stdout  one JSON object per line:
        {"log": [container, last lines]}  {"ended": [container, how]}
        {"health": true}  {"ready": {"text", "models", "startup"}}  {"wrong": text}
        {"nccl": [what each rank's NCCL says of its network, shared/nccl_log.py]}
exit    0 when ready or ended; the caller closes the connection of the others
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime

from shared.caller import gone
from shared.docker import Docker, containers, name_of
from shared.job import job
from shared.nccl_log import networks
from shared.records import read_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Record, Startup, Watch

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

POLL = 1.0
"""Seconds between two looks at the containers."""

OFTEN = 0.2
"""Seconds between two at the API, which cost less."""

OURS = "dgx-spark: "
"""How each line of inside/together.py itself begins."""

FAILED = f"{OURS}FAILED: "
"""And that which says why all ranks stop."""

WHOLE = 400
"""Lines of the log of a container that has ended: of vLLM 0.32, which shows each process's traceback, the reason stands
126 and more above the end."""

LAST_LINES = 1.0
"""Seconds until a container that failed is read once more. Docker reads standard output and error apart: the reason,
on one, may be in the log after the line on the other that says that it ended."""

FIRST_ANSWER = 300
"""Seconds for one answer: 3 to 23 were measured for the first one (vLLM 0.32, toy model), and the largest models make 3
tokens per second on two Sparks."""

LATE = 10
"""Seconds since a server's start after which a port that is open at the first look opened nobody knows when."""

LONG = 256
"""Tokens of the chat's answer: models that reason do so before they answer."""

BEGUN, QUESTION, RIGHT = "The capital of France is", "What is the capital of France? Answer with one word.", "paris"
"""What every model knows. Kernels that are wrong for GB10 serve healthily, and garbage."""

CAPITAL, SAME, OTHER = "Paris is the capital of France.", "France's capital city is Paris.", "Bananas are yellow."
"""Two sentences that mean the same, and one that does not."""

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The API is on this Spark, whose environment may name a proxy for the rest of the world."""


def emit(**message: object) -> None:
    print(json.dumps(message), flush=True)


def log(name: str, lines: int | str) -> list:
    """Last lines of a container's log; Docker multiplexes stdout and stderr in frames of 8 + n bytes."""
    connection = Docker()
    connection.request("GET", f"/containers/{name}/logs?stdout=1&stderr=1&tail={lines}")
    raw, at, parts = connection.getresponse().read(), 0, []
    while at + 8 <= len(raw):
        end = at + 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
        parts.append(raw[at + 8 : end])
        at = end
    shown = (COLOUR.sub("", line).rstrip() for line in b"".join(parts).decode(errors="replace").splitlines())
    return [line for line in shown if line]


class Unfit(Exception):
    """The endpoint is up and of no use; what the user reads."""


class Refused(Unfit):
    """The server answers with an error; `words`: its body."""

    def __init__(self, path: str, status: int, words: str) -> None:
        super().__init__(f"/health answers but /v1{path} fails with {status}: {words}")
        self.words = words


def get(url: str, key: str, body: dict | None = None, timeout: float = 5) -> bytes:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with DIRECTLY.open(urllib.request.Request(url, data, headers), timeout=timeout) as answer:
        text: bytes = answer.read()
        return text


def healthy(inputs: Watch) -> bool:
    """By its status: what engines and proxies write into the answer differs."""
    try:
        get(inputs["api"].removesuffix("/v1") + "/health", inputs["key"])
    except (OSError, http.client.HTTPException):
        return False
    return True


class Beginning:
    """A server's start as it is seen from outside, in seconds since its container's."""

    def __init__(self) -> None:
        self.started = ""
        """As Docker says it, in UTC."""

        self.configuration = ""

        self.seen: dict[str, int] = {}
        self.known = True

    def age(self) -> int:
        return round(time.time() - datetime.fromisoformat(f"{self.started[:19]}+00:00").timestamp())

    def note(self, what: str) -> None:
        self.seen.setdefault(what, self.age())

    def look(self, api: str, *, first: bool) -> None:
        """At the port."""
        if "port" in self.seen or not listens(api):
            return
        self.note("port")
        self.known = not first or self.seen["port"] <= LATE

    def told(self, wanted: Record) -> Startup | None:
        """What was seen of it; of a server that ran before anybody looked, what was seen when it started, if that."""
        if self.known:
            seen = self.seen
            return {
                "started": self.started, "configuration": self.configuration,
                "port": seen["port"], "health": seen["health"], "answer": seen["answer"],
            }  # fmt: skip
        former: Startup | None = read_record(wanted).get("startup")
        return former if former and former["started"] == self.started else None


def configuration(container: dict) -> str:
    """Tells one way of serving from another: a digest of image, command line and environment."""
    about = [container["Image"], *(container["Config"].get(key) for key in ("Entrypoint", "Cmd", "Env"))]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def listens(api: str) -> bool:
    place = urllib.parse.urlsplit(api)
    try:
        socket.create_connection((str(place.hostname), place.port or 80), timeout=5).close()
    except OSError:
        return False
    return True


def answer(inputs: Watch, path: str, body: dict | None = None, timeout: float = 5) -> dict:
    """Of one of the API's endpoints."""
    try:
        text = get(inputs["api"] + path, inputs["key"], body, timeout)
    except urllib.error.HTTPError as error:
        raise Refused(path, error.code, error.read().decode(errors="replace")) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unfit(f"/health answers but /v1{path} fails: {error}") from None
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise Unfit(f"/health answers but /v1{path} brings no JSON: {text[:200].decode(errors='replace')!r}") from None
    return found


def ask(inputs: Watch, path: str, **body: object) -> dict:
    """The model's answer at one of the API's endpoints."""
    return answer(inputs, path, {"model": inputs["model"], **body}, FIRST_ANSWER)


def chat(inputs: Watch) -> str | None:
    """What it says in a chat; None where the model has no chat template. Content may be null where it reasons, which
    engines call by two names."""
    messages = [{"role": "user", "content": QUESTION}]
    try:
        answer = ask(inputs, "/chat/completions", messages=messages, max_tokens=LONG, temperature=0)
    except Refused as refused:
        if re.search("chat.template", refused.words, re.IGNORECASE) and not inputs["template"]:
            return None
        raise
    message = answer["choices"][0]["message"]
    said = " ".join(message.get(part) or "" for part in ("reasoning", "reasoning_content", "content")).strip()
    if not said:
        raise Unfit("the chat came back with neither content nor reasoning")
    return said


def generates(inputs: Watch) -> str:
    text = ask(inputs, "/completions", prompt=BEGUN, max_tokens=16, temperature=0)["choices"][0]["text"]
    if not text.strip():
        raise Unfit("the completion came back empty")
    said = chat(inputs)
    asked, answer = (BEGUN, text) if said is None else (QUESTION, said)
    if inputs["check"] and RIGHT not in answer.lower():
        raise Unfit(f"the answer makes no sense: {asked!r} brought {answer!r}")
    return answer


def embeds(inputs: Watch) -> str:
    data = ask(inputs, "/embeddings", input=[CAPITAL, SAME, OTHER])["data"]
    first, same, other = ([float(number) for number in one["embedding"]] for one in data)
    if not all(map(math.isfinite, (*first, *same, *other))) or not any(first):
        raise Unfit("the embedding is no vector of numbers")
    if inputs["check"] and likeness(first, same) <= likeness(first, other):
        raise Unfit(f"the embeddings make no sense: {CAPITAL!r} is nearer to {OTHER!r} than to {SAME!r}")
    return f"vectors of {len(first)} numbers"


def likeness(one: list[float], other: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    product: float = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1)


def scores(inputs: Watch) -> str:
    results = ask(inputs, "/rerank", query=QUESTION, documents=[OTHER, CAPITAL])["results"]
    found = {result["index"]: float(result["relevance_score"]) for result in results}
    if set(found) != {0, 1} or not all(map(math.isfinite, found.values())):
        raise Unfit(f"the scores are not those of two documents: {results}")
    if inputs["check"] and found[1] <= found[0]:
        raise Unfit(f"the scores make no sense: {QUESTION!r} finds {OTHER!r} more fitting than {CAPITAL!r}")
    return f"{CAPITAL!r} scores {found[1]:.2f}, {OTHER!r} {found[0]:.2f}"


TASKS = {"generate": generates, "embed": embeds, "score": scores}


def first_answer(inputs: Watch) -> None:
    """A token, where the model makes text."""
    if inputs["task"] == "generate":
        ask(inputs, "/completions", prompt=BEGUN, max_tokens=1, temperature=0)
    else:
        TASKS[inputs["task"]](inputs)


def try_it(inputs: Watch, beginning: Beginning) -> None:
    """The model must be listed and do what people want of it."""
    try:
        models = [str(model["id"]) for model in answer(inputs, "/models")["data"]]
        if inputs["model"] not in models:
            raise Unfit(f"the server on this port serves {', '.join(models) or 'nothing'}, not {inputs['model']}")
        first_answer(inputs)
        beginning.note("answer")
        text = TASKS[inputs["task"]](inputs)
    except Unfit as unfit:
        emit(wrong=str(unfit))
    except (LookupError, TypeError, ValueError) as error:
        emit(wrong=f"/health answers but an answer has another form: {error!r}")
    else:
        startup = beginning.told(inputs["record"])
        write_record(inputs["record"], {}, startup=startup)
        emit(ready={"text": text, "models": models, "startup": startup})


def find(stack: str, component: str) -> str:
    """Name of the component's newest container (Swarm leaves old ones); '' where there is none."""
    found = containers(stack, f"dgx-spark.component={component}")
    newest = max(found, key=lambda container: container["Created"], default=None)
    return name_of(newest) if newest else ""


class Known:
    """What stood when the watch first saw a container: no news. A failure among it may be of what this very run has
    repaired since (a worker's end, say), and all ranks start again by themselves: what fails at once fails again."""

    def __init__(self, found: dict, lines: list[str]) -> None:
        self.restarts = found["RestartCount"]
        self.failure = failure(lines)


def failure(lines: list[str]) -> str:
    """Why all ranks stopped, where that is the last that inside/together.py has said; the container may stay for
    another try."""
    last = next((line for line in reversed(lines) if line.startswith(OURS)), "")
    return last.removeprefix(FAILED) if last.startswith(FAILED) else ""


def ended(name: str, found: dict | None, lines: list[str], known: dict[str, Known]) -> str:
    """How a container ended, by what Docker and its log say of it; '' while it runs."""
    if found is None:
        return "is gone"
    first = known.setdefault(name, Known(found, lines))
    state, failed = found["State"], failure(lines)
    if not state["Running"] and not state["Restarting"] and state["Status"] != "created":
        return failed or f"has ended with exit code {state['ExitCode']}"
    if failed and failed != first.failure:
        return failed
    # A Ray worker may restart while it waits for its head; a server that does has failed.
    if found["RestartCount"] > first.restarts and "server" in name:
        return f"was ended by exit code {state['ExitCode']} and started again by Docker"
    return ""


def rest(inputs: Watch, *, asked: bool) -> None:
    """Until the next look, which is due at once where the API begins to answer."""
    until = time.monotonic() + POLL
    while time.monotonic() < until:
        if gone(OFTEN):
            sys.exit()
        if "api" in inputs and not asked and healthy(inputs):
            return


def tell_network(name: str, inputs: Watch, told: dict) -> None:
    """What NCCL has said since; with one Spark there is no network to speak of."""
    found = networks(log(name, "all")) if inputs["several"] else []
    if found != told.get(name, []):
        told[name] = found
        emit(nccl=found)


def main() -> None:
    inputs: Watch = job()[1]
    said: dict = {}
    known: dict = {}
    told: dict = {}
    beginning = Beginning()
    asked, first = False, True
    while True:
        for component in inputs["components"]:
            name = find(inputs["stack"], component)
            if not name:
                emit(ended=[component, "has no container"])
                return
            lines = log(name, inputs["lines"])
            if lines != said.get(name):
                said[name] = lines
                emit(log=[name, lines])
                tell_network(name, inputs, told)
            container = Docker().get(f"/containers/{name}/json")
            if component == "server" and container:
                beginning.started = container["State"]["StartedAt"]
                if not beginning.configuration:
                    beginning.configuration = configuration(container)
                    emit(begun=beginning.configuration)
            how = ended(name, container, lines, known)
            if how:
                time.sleep(LAST_LINES)
                emit(log=[name, log(name, WHOLE) or lines])
                emit(ended=[name, how])
                return
        if "api" in inputs:
            beginning.look(inputs["api"], first=first)
            first = False
        if "api" in inputs and not asked and healthy(inputs):
            # It may have opened since the look at it.
            beginning.note("port")
            beginning.note("health")
            emit(health=True)
            for name in said:
                tell_network(name, inputs, told)
            try_it(inputs, beginning)
            asked = True
        rest(inputs, asked=asked)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
