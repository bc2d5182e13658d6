"""A genuine LiteLLM and a genuine Open WebUI, from PyPI, beside a genuine vLLM: as whoever uses them sees them."""

from __future__ import annotations

import json

import pytest
import requests

from simulator import sparks
from simulator.genuine.stack import ADA
from simulator.shell import SimulatorError
from tests.e2e.conftest import left_behind, step
from tests.e2e.test_beside import ENGINE_KEY, KEY, answers, bearer, chat, configure, opens_for_its_key_alone
from tests.real.browser import ENTER, browser, install
from tests.real.conftest import Genuine

pytestmark = [pytest.mark.long, pytest.mark.real]

WHO = {"role": "user", "content": "Who are you?"}
BOBS = "sk-of-bob-0123456789"
EMAIL, PASSWORD = "alice@example.org", "a-password"
START = 240
"""Seconds in which either is there, on a machine that has other things to do."""


def streamed(gateway):
    """Each piece's text, as it comes."""
    order = {"model": ADA, "messages": [WHO], "stream": True}
    answer = requests.post(f"{gateway}/chat/completions", json=order, headers=bearer(KEY), timeout=60, stream=True)
    answer.raise_for_status()
    lines = [line.removeprefix("data: ") for line in answer.iter_lines(decode_unicode=True) if line]
    assert lines[-1] == "[DONE]"
    pieces = [json.loads(line)["choices"] for line in lines[:-1]]
    return [piece[0]["delta"].get("content") or "" for piece in pieces if piece]


@pytest.fixture(scope="module")
def stack(simulated, tmp_path_factory):
    """A server with both beside it, of which nothing stays."""
    spark = simulated[-1]
    before = left_behind(spark)
    made = Genuine(tmp_path_factory.mktemp("beside"), "beside", [spark])
    configure(made)
    try:
        made.up()
        assert made.is_clean()
        yield made
    finally:
        made.destroy()
    assert left_behind(spark) == before


def comes(url):
    sparks.wait_for(lambda: answers(url), url, limit=START)


def test_the_gateway_opens_for_its_keys_alone_and_keeps_to_itself_what_is_said(stack):
    gateway = stack.outputs()["beside"]["gateway"]
    comes(f"{gateway}/models")
    said = opens_for_its_key_alone(gateway, ADA)
    assert said.startswith("Hello!")
    pieces = streamed(gateway)
    assert "".join(pieces) == "I am Ada."
    assert len([piece for piece in pieces if piece]) > 1
    log = sparks.on(stack.nodes[0], f"docker logs {stack.container('gateway')} 2>&1")
    assert "POST /v1/chat/completions" in log
    assert said not in log

    step("another person's key, and hers no more")
    stack("config", "set", "--secret", "--path", "gatewayKeys.bob", BOBS, "--stack", stack.name)
    stack("config", "rm", "--path", "gatewayKeys.alice", "--stack", stack.name)
    stack.up()
    comes(f"{gateway}/models")
    opened = {key: chat(gateway, ADA, key).status_code for key in (BOBS, KEY)}
    assert opened == {BOBS: 200, KEY: 401}
    configure(stack)
    stack.up()


def test_whoever_opens_the_chat_page_first_registers_asks_and_finds_it_all_again(stack, tmp_path):
    try:
        install()
    except SimulatorError as error:
        pytest.skip(str(error))
    spark, page_at = stack.nodes[0], stack.outputs()["beside"]["chat"]
    comes(f"{page_at}/health")

    step("the first account, the model, an answer")
    with browser(spark.address) as page:
        try:
            page.opens(page_at)
            registers(page)
            asks(page)
        finally:
            page.shoots(tmp_path / "chat.png")

    step("it asks nobody for a newer version, and another account is the first one's to make")
    about = requests.get(f"{page_at}/api/config", timeout=30).json()
    assert about["features"]["enable_version_update_check"] is False
    bob = {"name": "Bob", "email": "bob@example.org", "password": PASSWORD}
    assert requests.post(f"{page_at}/api/v1/auths/signup", json=bob, timeout=30).status_code == 403

    step("on another port: the account and what was said are still there")
    configure(stack, beside={"chatPort": 8081})
    stack.up()
    page_at = stack.outputs()["beside"]["chat"]
    assert page_at.endswith(":8081")
    comes(f"{page_at}/health")
    account = {"email": EMAIL, "password": PASSWORD}
    token = requests.post(f"{page_at}/api/v1/auths/signin", json=account, timeout=30).json()["token"]
    kept = requests.get(f"{page_at}/api/v1/chats/all", headers=bearer(token), timeout=30).text
    assert "I am Ada." in kept

    step("no key shows in a container")
    shown = sparks.on(spark, "docker ps -aq | xargs docker inspect")
    assert KEY not in shown
    assert ENGINE_KEY not in shown


def registers(page):
    page.clicks(page.finds("button[aria-labelledby=get-started]"))
    for field, text in {"name": "Alice", "email": EMAIL, "password": PASSWORD}.items():
        page.types(page.finds(f"input#{field}"), text)
    page.clicks(page.finds("button[type=submit]"))
    # What is new in this version.
    page.clicks(page.sees("button", "Okay, Let's Go!"))


def asks(page):
    page.clicks(page.finds("#model-selector-0-button"))
    page.clicks(page.sees("button", ADA))
    page.types(page.finds("#chat-input"), WHO["content"] + ENTER)
    page.sees("div[@id='response-content-container']", "I am Ada.")
    # There once the answer is whole.
    page.finds("button.copy-response-button")
