"""When an endpoint counts as ready: the questions of scripts/watch.py, asked of the stand-ins' own HTTP server."""

import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS, STANDINS = ROOT / "components" / "scripts", ROOT / "simulator" / "standins"


@pytest.fixture
def asked(monkeypatch):
    """Asks a model that is served as told; returns what watch.py emits."""
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from standin import server as standin
    from standin.knobs import Knobs

    from components.scripts import watch

    said = []
    monkeypatch.setattr(watch, "emit", lambda **message: said.append(message))
    monkeypatch.setattr(watch, "write_record", lambda wanted, checks: None)
    running = []

    def ask(*, knobs=None, check=True, certain=False, **served):
        monkeypatch.setattr(standin, "knobs", lambda: Knobs(**(knobs or {})))
        state = standin.State(names=["m"], keys=[], max_model_len=4096, step=lambda: None, **served)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (standin.Handler,), {"state": state}))
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"api": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "key": "", "record": {}}
        watch.try_it({**given, "task": served.get("task", "generate"), "template": certain, "check": check})
        return said[-1]

    yield ask
    for server in running:
        server.shutdown()
        server.server_close()


def test_a_model_that_knows_paris_in_a_chat_is_ready(asked):
    assert asked()["ready"]["text"] == "Paris."


@pytest.mark.parametrize("family", ["vllm", "sglang", "trtllm"])
def test_reasoning_counts_under_the_name_that_each_engine_gives_it(asked, family):
    assert "The user asks." in asked(family=family, reasons=True)["ready"]["text"]


def test_noise_is_no_answer_unless_the_user_says_so(asked):
    assert "the answer makes no sense: 'What is the capital" in asked(knobs={"garbles": True})["wrong"]
    assert "lockhandle" in asked(knobs={"garbles": True}, check=False)["ready"]["text"]


def test_a_chat_that_says_nothing_fails_although_completions_work(asked):
    assert "neither content nor reasoning" in asked(knobs={"mute": True})["wrong"]


def test_a_model_without_a_chat_template_is_judged_by_its_completion(asked):
    assert asked(template=False)["ready"]["text"].strip() == "Paris."
    assert "'The capital of France is' brought" in asked(template=False, knobs={"garbles": True})["wrong"]


def test_a_template_that_the_engine_does_not_find_is_a_failure_with_its_words(asked):
    assert "/v1/chat/completions fails with 400" in asked(template=False, certain=True)["wrong"]


@pytest.mark.parametrize(("task", "words"), [("embed", "vectors of 32 numbers"), ("score", "Paris is the capital")])
def test_a_pooling_model_is_asked_at_its_own_endpoint(asked, task, words):
    assert words in asked(task=task)["ready"]["text"]
    assert "make no sense" in asked(task=task, knobs={"garbles": True})["wrong"]
    assert asked(task=task, knobs={"garbles": True}, check=False)["ready"]
