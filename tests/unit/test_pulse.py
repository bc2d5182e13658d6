"""Whether an engine works, asked of one that this test plays."""

import contextlib
import http.server
import json
import threading

import pytest

from components.inside.pulse import Pulse, Question

WAIT = 30
WORK = '# HELP vllm:x y\nvllm:prompt_tokens_total{{engine="0"}} {0}\nvllm:kv_cache_usage_perc{{engine="0"}} 0.5\n'


class Engine:
    """An engine's API: `answer` and `metrics` are what the test makes of it."""

    def __init__(self):
        self.asked, self.each = [], threading.Semaphore(0)
        self.answer, self.metrics = (lambda: 200), (lambda: WORK.format(1))
        self.released = threading.Event()
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(*((200, engine.metrics()) if engine.metrics else (404, "")))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                engine.asked.append((self.path, body, self.headers.get("Authorization")))
                engine.each.release()
                self.reply(engine.answer(), "{}")

            def reply(self, status, text):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

            def handle(self):
                # Whoever asked may have given up.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    super().handle()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"

    def never(self):
        """No answer, until the test ends."""
        self.released.wait(WAIT)
        return 200


@pytest.fixture
def engine():
    made = Engine()
    yield made
    made.released.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("components.inside.pulse.AGAIN", 0.01)


def pulse(engine, limit=0.5, key_file=""):
    return Pulse(Question(engine.base, "/v1/completions", {"prompt": "Hello"}, limit, str(key_file)))


def ended_after(pulse, engine, times):
    """Seen `times` requests, and not stuck by then."""

    def end():
        for _ in range(times):
            engine.each.acquire(timeout=WAIT)
        pulse.ended.set()

    threading.Thread(target=end, daemon=True).start()
    return pulse.until_stuck()


def test_an_engine_that_answers_is_not_stuck(engine):
    made = pulse(engine)
    assert not ended_after(made, engine, 20)
    assert made.answered > 0
    assert engine.asked[0] == ("/v1/completions", {"prompt": "Hello"}, None)


def test_one_that_answers_with_an_error_answers(engine):
    engine.answer = lambda: 500
    assert not ended_after(pulse(engine), engine, 20)


def test_one_that_answers_nothing_and_whose_counters_stand_still_is_stuck(engine):
    engine.answer = engine.never
    assert pulse(engine).until_stuck()


def test_one_that_worked_and_answers_nothing_any_more_is_stuck(engine):
    engine.answer = lambda: 200 if len(engine.asked) < 5 else engine.never()
    made = pulse(engine)
    assert made.until_stuck()
    assert made.answered > 0


def test_one_whose_api_does_not_even_show_its_counters_any_more_is_stuck(engine):
    engine.answer, shown = engine.never, []

    def metrics():
        shown.append(1)
        return WORK.format(1) if len(shown) == 1 else engine.never()

    engine.metrics = metrics
    assert pulse(engine).until_stuck()


def test_one_that_is_busy_with_others_requests_is_not_stuck(engine):
    steps = iter(range(1, 1000))
    engine.answer, engine.metrics = engine.never, lambda: WORK.format(next(steps))
    assert not ended_after(pulse(engine), engine, 4)


def test_of_one_that_shows_no_counters_nothing_is_said(engine):
    engine.answer, engine.metrics = engine.never, None
    assert not ended_after(pulse(engine), engine, 4)


@pytest.mark.parametrize("text", ["sk-1", "sk-1\n", '{"api-key": "sk-1"}'])
def test_it_asks_with_the_key_of_the_api(engine, tmp_path, text):
    (tmp_path / "key").write_text(text)
    assert not ended_after(pulse(engine, key_file=tmp_path / "key"), engine, 1)
    assert engine.asked[0][2] == "Bearer sk-1"
