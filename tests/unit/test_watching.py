"""The client of ./spark measure: which of its requests were accepted and lost."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import watching
from benchmarks.watching import Client
from simulator import sparks

WHOLE = b'data: {"choices": []}\n\ndata: [DONE]\n\n'


class Handler(BaseHTTPRequestHandler):
    """Answers as its server says: a status, a length (None: until it closes) and what comes of that."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, length, said = self.server.says
        if not status:
            return
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


@pytest.fixture
def says():
    """A server of these answers; its API's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def of(status, length=None, said=b""):
        server.says = status, length, said
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield of
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
