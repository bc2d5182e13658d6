"""A genuine LiteLLM and a genuine Open WebUI, from PyPI, beside a genuine vLLM: as whoever uses them sees them."""

from __future__ import annotations

import json

import pytest
import requests

from simulator import sparks
from simulator.genuine.stack import ADA
from tests.e2e.conftest import left_behind, step
from tests.e2e.test_beside import ENGINE_KEY, KEY, answers, bearer, configure, opens_for_its_key_alone
from tests.real.browser import ENTER, browser

pytestmark = [pytest.mark.long, pytest.mark.real]

WHO = {"role": "user", "content": "Who are you?"}
START = 240
"""Seconds in which both are there, on a machine that has other things to do."""


def streamed(gateway):
    """Each piece's text, as it comes."""
    order = {"model": ADA, "messages": [WHO], "stream": True}
    answer = requests.post(f"{gateway}/chat/completions", json=order, headers=bearer(KEY), timeout=60, stream=True)
    answer.raise_for_status()
    lines = [line.removeprefix("data: ") for line in answer.iter_lines(decode_unicode=True) if line]
    assert lines[-1] == "[DONE]"
    pieces = [json.loads(line)["choices"] for line in lines[:-1]]
    return [piece[0]["delta"].get("content") or "" for piece in pieces if piece]


def test_the_gateway_and_the_chat_page_serve_people(alone, tmp_path):
    spark = alone.nodes[0]
    before = left_behind(spark)
    step("up")
    configure(alone)
    alone.up()
    assert alone.is_clean()
    beside = alone.outputs()["beside"]
    gateway, chat = beside["gateway"], beside["chat"]
    sparks.wait_for(lambda: answers(f"{gateway}/models"), "the gateway", limit=START)

    step("the gateway opens for its key alone")
    opens_for_its_key_alone(gateway, ADA)
    pieces = streamed(gateway)
    assert "".join(pieces) == "I am Ada."
    assert len([piece for piece in pieces if piece]) > 1
    log = sparks.on(spark, f"docker logs {alone.container('gateway')} 2>&1")
    assert "POST /v1/chat/completions" in log
    assert "I am Ada." not in log

    step("the chat page: the first account, the model, an answer")
    sparks.wait_for(lambda: answers(f"{chat}/health"), "the chat page", limit=START)
    with browser(spark.address) as page:
        try:
            page.opens(chat)
            registers(page)
            asks(page)
        finally:
            page.shoots(tmp_path / "chat.png")

    step("no key shows in a container, and nothing is left behind")
    shown = sparks.on(spark, "docker ps -aq | xargs docker inspect")
    assert KEY not in shown
    assert ENGINE_KEY not in shown
    alone.destroy()
    assert left_behind(spark) == before


def registers(page):
    page.clicks(page.finds("button[aria-labelledby=get-started]"))
    for field, text in {"name": "Alice", "email": "alice@example.org", "password": "a-password"}.items():
        page.types(page.finds(f"input#{field}"), text)
    page.clicks(page.finds("button[type=submit]"))
    # What is new in this version.
    page.clicks(page.sees("button", "Okay, Let's Go!"))


def asks(page):
    page.clicks(page.finds("#model-selector-0-button"))
    page.clicks(page.sees("button", ADA))
    page.types(page.finds("#chat-input"), WHO["content"] + ENTER)
    page.sees("div[@id='response-content-container']", "I am Ada.")
