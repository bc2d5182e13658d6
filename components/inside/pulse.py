"""Does the engine still work? /health may be 200 for ever while no request is answered; so rank 0 asks for an answer.

Of a server under load an answer may take long. So one that does not come within the limit counts only where none of the
engine's own counters has moved meanwhile, and where it has none, nothing is said of it.

Runs inside the engine's image: Python 3.10+, standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

OFTEN = 5
"""How many times an engine is asked within its limit."""

AGAIN = 1.0
"""Seconds until an engine that refused the connection is asked again."""

WORK = re.compile(
    r"^\w+:(?:(?:prompt|generation)_tokens_total|kv_cache_usage_perc|token_usage|num_used_tokens)\b.*$", re.MULTILINE
)
"""What changes with every step of an engine's, and only then. Source: vllm/v1/metrics/loggers.py of vLLM 0.19,
sglang/srt/observability/metrics_collector.py of SGLang 0.5."""


@dataclass(frozen=True)
class Question:
    """What to ask, as plan/engines/common.py has it."""

    base: str
    """Of the API on this Spark, without /v1."""

    path: str
    body: dict[str, Any]
    limit: float
    """Seconds without an answer or any other work after which an engine counts as stuck."""

    key_file: str = ""
    """With the API's key: its text, or JSON with the key at `api-key`. '': the API is open."""


class Pulse:
    """Of one attempt of the engine's: from its start to its end."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.ended = threading.Event()
        self.answered = 0.0
        """When the engine has last answered; 0: never."""

        self._headers = {"Content-Type": "application/json"} | _authorization(question.key_file)

    def until_stuck(self) -> bool:
        """Ask again and again; True: it is stuck. False: somebody has set `ended`."""
        before, since = self._work(), time.monotonic()
        known = bool(before)
        while not self.ended.wait(self.question.limit / OFTEN):
            if self._answers():
                self.answered = time.monotonic()
                before, since = self._work(), self.answered
                known = known or bool(before)
            elif time.monotonic() - since >= self.question.limit:
                now = self._work()
                if known and now in ("", before):
                    return True
                before, since = now, time.monotonic()
        return False

    def _answers(self) -> bool:
        """Within its limit, whatever the answer is."""
        question = self.question
        deadline = time.monotonic() + question.limit
        asked = urllib.request.Request(
            f"{question.base}{question.path}", json.dumps(question.body).encode(), self._headers
        )
        while (left := deadline - time.monotonic()) > 0 and not self.ended.is_set():
            try:
                urllib.request.urlopen(asked, timeout=left).close()
            except urllib.error.HTTPError:
                return True
            except (OSError, http.client.HTTPException):
                self.ended.wait(min(AGAIN, max(0.0, deadline - time.monotonic())))
            else:
                return True
        return False

    def _work(self) -> str:
        """The engine's counters; '' where it shows none."""
        asked = urllib.request.Request(f"{self.question.base}/metrics", headers=self._headers)
        with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(asked, timeout=5) as shown:
            return "\n".join(WORK.findall(shown.read().decode(errors="replace")))
        return ""


def _authorization(key_file: str) -> dict[str, str]:
    if not key_file:
        return {}
    with open(key_file) as stream:
        text = stream.read().strip()
    key = json.loads(text)["api-key"] if text.startswith("{") else text
    return {"Authorization": f"Bearer {key}"}
