"""The client of ./spark measure: which of its requests were accepted and lost."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import watching
from benchmarks.watching import Client
from simulator import sparks

WHOLE = b'data: {"choices": []}\n\ndata: [DONE]\n\n'


class Handler(BaseHTTPRequestHandler):
    """Answers as its server says: a status, a length (None: until it closes) and what comes of that."""

    def do_POST(self):
        server = self.server
        server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.inside += 1
            server.most = max(server.most, server.inside)
        time.sleep(server.pause)
        with server.lock:
            server.inside -= 1
        self.answer(*server.says)

    def answer(self, status, length, said):
        if not status:
            return
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


class Says:
    """Has the server answer so from now on; its API's address."""

    def __init__(self, server):
        self.server = server

    def __call__(self, status, length=None, said=b"", pause=0.0):
        self.server.says, self.server.pause = (status, length, said), pause
        return f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def says():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.inside, server.most = threading.Lock(), 0, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Says(server)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((200, 2, b"{}"), "answered"),
        ((500, 2, b"{}"), "lost"),
        ((502, 2, b"{}"), "lost"),
        ((503, 2, b"{}"), "refused"),
        ((404, 2, b"{}"), "refused"),
        ((200, 99, b"{"), "lost"),
        ((0,), "lost"),
    ],
    ids=["whole", "an error", "a gateway's error", "starting", "another model", "half an answer", "broken off"],
)
def test_a_request_that_was_accepted_and_not_answered_is_lost(says, answer, outcome):
    assert watching.ask(says(*answer), "m", {}) == outcome


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (WHOLE, "answered"),
        (b'data: {"choices": []}\n\n', "lost"),
        (b"", "lost"),
        (b'data: {"error": {"message": "EngineDeadError"}}\n\n' + WHOLE, "lost"),
    ],
    ids=["whole", "broken off", "nothing", "an error"],
)
def test_of_a_stream_the_end_must_have_come(says, said, outcome):
    assert watching.ask(says(200, None, said), "m", {"stream": True}) == outcome


def test_what_nobody_listens_to_is_not_lost():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert watching.ask(f"http://127.0.0.1:{free.getsockname()[1]}/v1", "m", {}) == "refused"


def test_a_client_counts_what_is_lost_and_what_is_answered(says):
    with Client(says(200, 2, b"{}"), "m") as client:
        client.answers_again()
        assert client.lost == 0
        says(500)
        sparks.wait_for(lambda: client.lost > 0, "a loss")
        says(200, 2, b"{}")
        client.answers_again()
    assert client.silence() >= watching.OFTEN


@pytest.mark.parametrize("long", [True, False])
def test_a_client_of_long_requests_has_one_in_flight_and_any_other_as_many_as_it_takes(says, long):
    base = says(200, None, WHOLE, pause=3 * watching.OFTEN)
    with Client(base, "m", long=long) as client:
        sparks.wait_for(lambda: len(client.took) >= 4, "some answers")
    assert (says.server.most == 1) is long
    assert says.server.asked["model"] == "m"
    assert ("stream" in says.server.asked) is long
    assert min(client.took) > 0
