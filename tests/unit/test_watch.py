"""When an endpoint counts as ready: the questions of scripts/watch.py, asked of the stand-ins' own HTTP server."""

import io
import threading
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS, STANDINS = ROOT / "components" / "scripts", ROOT / "simulator" / "standins"


NOW = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


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
    monkeypatch.setattr(watch, "write_record", lambda wanted, checks, **more: None)
    running = []

    def ask(*, knobs=None, check=True, certain=False, **served):
        monkeypatch.setattr(standin, "knobs", lambda: Knobs(**(knobs or {})))
        state = standin.State(names=["m"], keys=[], max_model_len=4096, step=lambda: None, **served)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (standin.Handler,), {"state": state}))
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"api": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "key": "", "record": {}}
        beginning = watch.Beginning()
        beginning.started = NOW
        beginning.note("port")
        beginning.note("health")
        inputs = {**given, "task": served.get("task", "generate"), "template": certain, "check": check}
        watch.try_it(inputs, beginning)
        return said[-1]

    yield ask
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def answered(monkeypatch):
    """Asks a server that answers everything with one body and status; (is it healthy, what watch.py emits)."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from components.scripts import watch

    said, running = [], []
    monkeypatch.setattr(watch, "emit", lambda **message: said.append(message))

    def ask(body, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"api": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "key": "sk-private"}
        watch.try_it({**given, "task": "generate"}, watch.Beginning())
        return watch.healthy(given), said[-1]

    yield ask
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "status", "healthy", "words"),
    [
        (b"OK", 200, True, "/v1/models brings no JSON: 'OK'"),
        (b"<html>", 200, True, "/v1/models brings no JSON: '<html>'"),
        (b"[1]", 200, True, "an answer has another form"),
        (b'{"data": [{}]}', 200, True, "an answer has another form"),
        (b"no", 401, False, "/v1/models fails with 401: no"),
        (b'{"data": []}', 200, True, "the server on this port serves nothing, not m"),
    ],
)
def test_an_answer_that_is_not_the_apis_is_said_and_healthy_is_what_the_status_says(
    answered, body, status, healthy, words
):
    alive, said = answered(body, status)
    assert alive == healthy
    assert words in said["wrong"]
    assert "sk-private" not in said["wrong"]


def test_a_proxy_for_the_rest_of_the_world_is_not_asked_for_the_api_on_this_spark(answered, monkeypatch):
    # An address that nobody listens at.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)
    alive, said = answered(b'{"data": []}')
    assert alive
    assert "the server on this port serves nothing" in said["wrong"]


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


AGAIN = "dgx-spark: FAILED: rank 0 (spark-1) ended with exit code 0; all ranks start again in 5 s ({} of 3)"


@pytest.fixture
def looks(monkeypatch):
    """What watch.py makes of each look at a server's container, in turn: its last lines, and what Docker says of it."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from components.scripts import watch

    known = {}

    def look(line, *, running=True, restarts=0):
        state = {"Running": running, "Restarting": False, "Status": "running" if running else "exited", "ExitCode": 0}
        return watch.ended("server", {"State": state, "RestartCount": restarts}, line.splitlines(), known)

    return look


def test_a_failure_from_before_an_up_is_not_that_ups(looks):
    """A worker was stopped and the server noticed; `up` has started the worker, and all ranks start again."""
    assert [looks(AGAIN.format(1)), looks("dgx-spark: starting the engine on every rank"), looks("ready")] == [""] * 3


def test_what_fails_at_once_has_failed_when_it_fails_again(looks):
    assert looks(AGAIN.format(1)) == ""
    assert "(2 of 3)" in looks(AGAIN.format(2))


@pytest.mark.parametrize("after", ["", "\nRuntimeError: CUDA error"], ids=["last", "before what Docker read later"])
def test_a_failure_during_an_up_ends_it(looks, after):
    assert looks("Loading weights") == ""
    assert "rank 0 (spark-1) ended with exit code 0" in looks(AGAIN.format(1) + after)


def test_a_server_that_gave_up_before_the_first_look_says_why(looks):
    assert looks("dgx-spark: FAILED: rank 1 (spark-2) is lost; gave up after 1 starts", running=False) == (
        "rank 1 (spark-2) is lost; gave up after 1 starts"
    )


def test_a_server_that_docker_had_to_start_again_has_failed(looks):
    assert looks("loading") == ""
    assert "started again by Docker" in looks("loading", restarts=1)


def test_an_api_is_seen_to_answer_before_the_next_look_at_the_containers_is_due(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from components.scripts import watch

    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch, "gone", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(watch, "healthy", lambda inputs: now[0] >= answers)

    def rests(*, asked=False, **inputs):
        began = now[0]
        watch.rest(inputs, asked=asked)
        return round(now[0] - began, 1)

    answers = 0.4
    assert rests(api="http://10.0.0.1:8000/v1") == 0.4
    answers = 1000
    assert rests(api="http://10.0.0.1:8000/v1") == watch.POLL
    answers = 0
    assert rests(api="http://10.0.0.1:8000/v1", asked=True) == rests() == watch.POLL


def test_of_a_containers_log_each_line_is_read_whatever_frames_it_came_in(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from components.scripts import watch

    parts = [b"one\ntw", b"o \x1b[31mred\x1b[0m\n", b"\n", b"three"]
    frames = b"".join(bytes([1, 0, 0, 0]) + len(part).to_bytes(4, "big") + part for part in parts)

    class Docker:
        def request(self, method, path):
            assert path.endswith("tail=all")

        def getresponse(self):
            return io.BytesIO(frames)

    monkeypatch.setattr(watch, "Docker", Docker)
    assert watch.log("c", "all") == ["one", "two red", "three"]


@pytest.fixture
def beginning(monkeypatch):
    """A server whose container started 2026-11-26 at 20:00:00 UTC; seconds since then → what watch.py sees at them."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from components.scripts import watch

    began = datetime(2026, 11, 26, 20, tzinfo=timezone.utc).timestamp()
    found = watch.Beginning()
    found.started = "2026-11-26T20:00:00.123456789Z"

    def at(seconds, does):
        monkeypatch.setattr(watch.time, "time", lambda: began + seconds)
        does(found)
        return found

    monkeypatch.setattr(watch, "listens", lambda api: at.open)
    at.open = False
    return at


def test_a_start_is_told_in_seconds_since_the_servers_own(beginning):
    beginning(1, lambda one: one.look("api", first=True))
    beginning.open = True
    beginning(61, lambda one: one.look("api", first=False))
    beginning(62, lambda one: one.look("api", first=False))
    beginning(540, lambda one: one.note("health"))
    found = beginning(548, lambda one: one.note("answer"))
    started = "2026-11-26T20:00:00.123456789Z"
    assert found.told({}) == {"started": started, "configuration": "", "port": 61, "health": 540, "answer": 548}


def test_a_configuration_is_image_command_line_and_environment():
    from components.scripts.watch import configuration

    known = {"Image": "sha256:1", "Config": {"Cmd": ["serve"], "Entrypoint": None, "Env": ["A=1"], "Hostname": "x"}}
    others = [
        {**known, "Image": "sha256:2"},
        *({**known, "Config": {**known["Config"], **more}} for more in ({"Cmd": ["bench"]}, {"Env": ["A=2"]})),
    ]
    assert len({configuration(one) for one in (known, *others)}) == 4
    assert configuration({**known, "Config": {**known["Config"], "Hostname": "y"}}) == configuration(known)


def test_a_server_that_ran_before_anybody_looked_keeps_what_was_seen_of_its_start(beginning, monkeypatch):
    from components.scripts import watch

    beginning.open = True
    beginning(7000, lambda one: one.look("api", first=True))
    found = beginning(7001, lambda one: one.note("answer"))
    seen = {"started": "2026-11-26T20:00:00.123456789Z", "port": 61, "health": 540, "answer": 548}
    for former, told in (({}, None), ({"startup": seen}, seen), ({"startup": {**seen, "started": "before"}}, None)):
        monkeypatch.setattr(watch, "read_record", lambda wanted, former=former: former)
        assert found.told({}) == told
