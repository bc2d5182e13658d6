"""Watch this Spark's containers until told to stop; runs on the Spark while an endpoint comes up.

stdin   JSON: containers [name], lines (how many of the log to show when one has ended), and on the head
        also api (base URL on this Spark), model, key (bearer token or ''), record (written when ready)
stdout  one JSON object per line:
        {"log": [container, newest line]}  {"ended": [container, exit code, last lines]}
        {"health": true}  {"ready": {"text", "models"}}  {"wrong": text}
exit    0 when ready or ended; the caller closes the connection of the others
"""

import json
import sys
import time
import urllib.error
import urllib.request

from common import Docker, job, write_record

POLL = 1.0
"""Seconds between two looks."""

FIRST_ANSWER = 120
"""Seconds for the first completion; 3 to 23 were measured with vLLM 0.32 on a toy model."""


def emit(**message: object) -> None:
    print(json.dumps(message), flush=True)


def log(name: str, lines: int) -> list:
    """Last lines of a container's log; Docker multiplexes stdout and stderr in frames of 8 + n bytes."""
    connection = Docker()
    connection.request("GET", f"/containers/{name}/logs?stdout=1&stderr=1&tail={lines}")
    raw, text = connection.getresponse().read(), b""
    while len(raw) >= 8:
        size = int.from_bytes(raw[4:8], "big")
        text, raw = text + raw[8 : 8 + size], raw[8 + size :]
    return [line for line in text.decode(errors="replace").splitlines() if line.strip()]


def get(url: str, key: str, body: dict = None, timeout: float = 5) -> object:
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


def main() -> None:
    _, given = job()
    said: dict = {}
    asked = False
    while True:
        for name in given["containers"]:
            state = Docker().get(f"/containers/{name}/json")
            status = state["State"] if state else {"Running": False, "ExitCode": "?", "Restarting": False}
            started = state and state["RestartCount"]
            if not status["Running"] or status["Restarting"] or (name.endswith("-server") and started):
                emit(ended=[name, status["ExitCode"], log(name, given["lines"]) if state else ["it does not exist"]])
                return
            newest = log(name, 1)
            if newest and newest != said.get(name):
                said[name] = newest
                emit(log=[name, newest[-1]])
        if "api" in given and not asked and healthy(given):
            emit(health=True)
            try_it(given)
            asked = True
        time.sleep(POLL)


try:
    main()
except BrokenPipeError:
    sys.exit(0)
