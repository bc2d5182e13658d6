"""Watch this Spark's containers until told to stop; runs on the Spark while an endpoint comes up.

stdin   JSON: stack, components [label of a container], lines (how many of a log to report), and on the head
        also api (base URL on this Spark), model, key (bearer token or ''), record (written when ready)
stdout  one JSON object per line:
        {"log": [container, last lines]}  {"ended": [container, how]}
        {"health": true}  {"ready": {"text", "models"}}  {"wrong": text}
        {"transport": [container, how NCCL calls its network]}
exit    0 when ready or ended; the caller closes the connection of the others
"""

import calendar
import json
import re
import sys
import time
import urllib.error
import urllib.request

from common import Docker, containers, job, transports, write_record

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

POLL = 1.0
"""Seconds between two looks."""

FAILED = "dgx-spark: FAILED: "
"""How inside/together.py begins the line that says why all ranks stop."""

YOUNG = 15
"""Seconds since its start within which a container counts as made in this run."""

FIRST_ANSWER = 120
"""Seconds for the first completion; 3 to 23 were measured with vLLM 0.32 on a toy model."""


def emit(**message: object) -> None:
    print(json.dumps(message), flush=True)


def log(name: str, lines: int | str) -> list:
    """Last lines of a container's log; Docker multiplexes stdout and stderr in frames of 8 + n bytes."""
    connection = Docker()
    connection.request("GET", f"/containers/{name}/logs?stdout=1&stderr=1&tail={lines}")
    raw, text = connection.getresponse().read(), b""
    while len(raw) >= 8:
        size = int.from_bytes(raw[4:8], "big")
        text, raw = text + raw[8 : 8 + size], raw[8 + size :]
    lines = (COLOUR.sub("", line).rstrip() for line in text.decode(errors="replace").splitlines())
    return [line for line in lines if line]


def get(url: str, key: str, body: dict | None = None, timeout: float = 5) -> object:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def healthy(given: dict) -> bool:
    try:
        get(given["api"].removesuffix("/v1") + "/health", given["key"])
    except (OSError, ValueError):
        return False
    return True


def try_it(given: dict) -> None:
    """The model must be listed and answer."""
    models = [model["id"] for model in get(f"{given['api']}/models", given["key"])["data"]]
    if given["model"] not in models:
        emit(wrong=f"the server on this port serves {', '.join(models)}, not {given['model']}")
        return
    order = {"model": given["model"], "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    try:
        answer = get(f"{given['api']}/completions", given["key"], order, FIRST_ANSWER)
        text = answer["choices"][0]["text"]
    except (OSError, LookupError, ValueError) as error:
        emit(wrong=f"/health answers but a completion fails: {error}")
        return
    if not text.strip():
        emit(wrong="the completion came back empty")
        return
    write_record(given["record"], {})
    emit(ready={"text": text, "models": models})


def find(stack: str, component: str) -> str:
    """Name of the component's newest container (Swarm leaves old ones); '' where there is none."""
    found = containers(stack, f"dgx-spark.component={component}")
    newest = max(found, key=lambda container: container["Created"], default=None)
    return newest["Names"][0].lstrip("/") if newest else ""


class Known:
    """What stood when the watch first saw a container: no news."""

    def __init__(self, found: dict, lines: list) -> None:
        self.restarts = found["RestartCount"]
        began = calendar.timegm(time.strptime(found["State"]["StartedAt"][:19], "%Y-%m-%dT%H:%M:%S"))
        # A container that was just made has failed for the endpoint that is waited for; an older one may be on its
        # way back, with what is repaired now.
        self.failure = lines[-1] if lines and time.time() - began > YOUNG else ""


def ended(name: str, lines: list, known: dict) -> str:
    """How a container ended; '' while it runs."""
    found = Docker().get(f"/containers/{name}/json")
    if found is None:
        return "is gone"
    first = known.setdefault(name, Known(found, lines))
    # Of inside/together.py, when a rank's engine has ended; the container may stay for another try.
    if lines and lines[-1].startswith(FAILED) and lines[-1] != first.failure:
        return lines[-1].removeprefix(FAILED)
    state = found["State"]
    if not state["Running"] and not state["Restarting"] and state["Status"] != "created":
        return f"has ended with exit code {state['ExitCode']}"
    # A Ray worker may restart while it waits for its head; a server that does has failed.
    if found["RestartCount"] > first.restarts and "server" in name:
        return f"was ended by exit code {state['ExitCode']} and started again by Docker"
    return ""


def tell_transport(name: str, given: dict, told: set) -> None:
    """Once per container, as soon as NCCL has said it; with one Spark it never does."""
    found = transports(log(name, "all")) if given["several"] and name not in told else set()
    for transport in sorted(found):
        told.add(name)
        emit(transport=[name, transport])


def main() -> None:
    _, given = job()
    said: dict = {}
    known: dict = {}
    told: set = set()
    asked = False
    while True:
        for component in given["components"]:
            name = find(given["stack"], component)
            if not name:
                emit(ended=[component, "has no container"])
                return
            lines = log(name, given["lines"])
            if lines != said.get(name):
                said[name] = lines
                emit(log=[name, lines])
                tell_transport(name, given, told)
            how = ended(name, lines, known)
            if how:
                emit(ended=[name, how])
                return
        if "api" in given and not asked and healthy(given):
            emit(health=True)
            for name in said:
                tell_transport(name, given, told)
            try_it(given)
            asked = True
        time.sleep(POLL)


try:
    main()
except BrokenPipeError:
    sys.exit(0)
