"""The ranks of one server, as real processes on this machine: they start, stop and fail together."""

import argparse
import contextlib
import hmac
import json
import os
import queue
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import components.inside.together as together

PROGRAM = Path(together.__file__)
WAIT = 30


class Rank:
    """One container's main process, and what it prints."""

    def __init__(self, rank, names, port, key, command, *, server="one", **options):
        words = [f"--{name}={value}" for name, value in {"pause": 1, "key": key, **options}.items()]
        self.process = subprocess.Popen(
            [
                sys.executable, PROGRAM, f"--rank={rank}", f"--names={names}", f"--address=127.0.0.1:{port}",
                *words, "--", *command,
            ],
            env={**os.environ, "DGX_SPARK_SERVER": server},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put(None)

    def says(self, words):
        """Wait for a line that holds `words`; returns it."""
        seen = []
        while True:
            try:
                line = self.lines.get(timeout=WAIT)
            except queue.Empty:
                line = None
            assert line is not None, f"{words!r} was not said, but {seen}"
            seen.append(line)
            if words in line:
                return line

    def ends(self):
        return self.process.wait(WAIT)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_text("what all ranks know\n")
    return path


@pytest.fixture
def start(port, key):
    """Ranks that are ended with the test."""
    ranks = []

    def make(rank, command, names="a,b", **options):
        made = Rank(rank, names, port, key, command, **options)
        ranks.append(made)
        return made

    yield make
    for rank in ranks:
        rank.process.terminate()
        rank.process.wait(WAIT)


def engine(tmp_path, name, then="exec sleep 1000", *, first=":"):
    return ["sh", "-c", f"{first}; echo $$ > {tmp_path}/{name}; echo {name} started; {then}"]


def pid(tmp_path, name):
    return int((tmp_path / name).read_text())


def alive(number):
    return Path(f"/proc/{number}").exists()


def test_no_rank_starts_before_all_are_there(start, tmp_path):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    assert not (tmp_path / "a").exists()
    second = start(1, engine(tmp_path, "b"))
    second.says("b started")
    first.says("a started")


def test_an_engine_that_ends_before_it_serves_starts_again_with_nothing_compiled_and_the_weights_stay(
    start, tmp_path, monkeypatch
):
    for path in ("compiled/vllm/graphs", "compiled/huggingface/hub/weights", "other/vllm/graphs"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("damaged")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "compiled/huggingface"))
    fails = 'grep -q damaged {0} && exit 1; echo "{1} compiles anew"; exec sleep 1000'
    path = tmp_path / "compiled/vllm/graphs"
    first = start(0, ["sh", "-c", fails.format(path, "a")], compiled=tmp_path / "compiled")
    start(1, engine(tmp_path, "b"), compiled=tmp_path / "other").says("what it had compiled goes")
    first.says("FAILED: rank 0 (a) ended with exit code 1; all ranks start again")
    first.says("a compiles anew")
    assert not path.exists()
    assert not (tmp_path / "other/vllm").exists()
    assert (tmp_path / "compiled/huggingface/hub/weights").read_text() == "damaged"


def test_rank_0_waits_for_the_others_also_where_its_end_of_the_cable_has_no_address_yet(start, tmp_path):
    # Of RFC 5737's, which nobody has. Static ones come with the carrier: when the other Spark is on.
    first = start(0, engine(tmp_path, "a"), address="192.0.2.1:29500")
    first.says("waiting for rank 1 (b)")


def test_what_a_rank_compiled_stays_when_another_is_lost(start, tmp_path):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled/graphs").write_text("whole")
    first = start(0, engine(tmp_path, "a"), compiled=tmp_path / "compiled")
    second = start(1, engine(tmp_path, "b"))
    first.says("a started")
    second.says("b started")
    second.process.kill()
    first.says("rank 1 (b) is lost")
    start(1, engine(tmp_path, "b")).says("b started")
    first.says("a started")
    assert (tmp_path / "compiled/graphs").read_text() == "whole"


def test_all_stop_and_start_again_when_one_ends(start, tmp_path):
    first = start(0, engine(tmp_path, "a"))
    second = start(1, engine(tmp_path, "b"))
    first.says("a started")
    second.says("b started")
    former = pid(tmp_path, "a")
    os.kill(pid(tmp_path, "b"), signal.SIGKILL)
    first.says("FAILED: rank 1 (b) ended with exit code -9; all ranks start again in 1 s (1 of 3)")
    assert not alive(former)
    first.says("a started")
    second.says("b started")


def test_after_its_restarts_a_server_gives_up_and_every_rank_says_why(start, tmp_path):
    # Not before the other one has written its pid, which would otherwise be ended too early.
    first = start(0, engine(tmp_path, "a", f"until test -s {tmp_path}/b; do sleep 0.1; done; exit 3"), restarts=1)
    second = start(1, engine(tmp_path, "b"), restarts=1)
    reason = "FAILED: rank 0 (a) ended with exit code 3; gave up after 2 starts"
    first.says(reason)
    second.says(reason)
    assert (first.ends(), second.ends()) == (0, 0)
    assert not alive(pid(tmp_path, "b"))


def test_a_rank_that_was_killed_joins_again(start, tmp_path):
    first = start(0, engine(tmp_path, "a"))
    second = start(1, engine(tmp_path, "b"))
    first.says("a started")
    second.process.kill()
    first.says("FAILED: rank 1 (b) is lost")
    os.kill(pid(tmp_path, "b"), signal.SIGKILL)  # Docker ends the whole container
    third = start(1, engine(tmp_path, "b"))
    first.says("rank 1 (b) has joined")
    third.says("b started")


class Peer:
    """A rank that this test plays, at the other end of rank 0's or a rank's connection."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(WAIT)
        self.stream = connection.makefile("r")

    def say(self, **message):
        self.connection.sendall((json.dumps(message) + "\n").encode())

    def hear(self):
        """The next message but signs of life; None: the connection is closed."""
        while True:
            line = self.stream.readline()
            if not line:
                return None
            message = json.loads(line)
            if "beat" not in message:
                return message

    def hears(self, kind):
        while kind not in (message := self.hear() or pytest.fail(f"closed before {kind}")):
            pass
        return message[kind]


def proof(key, *words):
    return hmac.new(key.read_bytes(), json.dumps(words).encode(), "sha256").hexdigest()


def connect(port):
    return Peer(socket.create_connection(("127.0.0.1", port), timeout=WAIT))


def led(listener, key):
    """Rank 0's end of the next connection, proven."""
    lead = Peer(listener.accept()[0])
    lead.say(prove="theirs")
    lead.say(proof=proof(key, "lead", "one", 1, "theirs", lead.hear()["asking"]))
    return lead


def hello(key, asked, *, server="one", role="rank"):
    """What a rank says to be let in, as rank 1."""
    return {"rank": 1, "server": server, "asking": "mine", "proof": proof(key, role, server, 1, asked, "mine")}


def join(port, key, **how):
    peer = connect(port)
    peer.say(**hello(key, peer.hears("prove"), **how))
    return peer


def test_a_rank_that_joins_again_before_its_loss_was_seen_is_started_with_all_the_others(start, tmp_path, port, key):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    before = join(port, key)
    before.hears("start")
    before.say(started=True)
    first.says("a started")
    # Its Spark lost power: nothing is said on the old connection any more, and it stays open.
    again = join(port, key)
    again.hears("stop")
    again.say(stopped=True)
    first.says("FAILED: rank 1 (b) is lost")
    again.hears("start")
    again.say(started=True)
    first.says("a started")


def test_a_rank_that_restarts_twice_before_either_loss_was_seen_is_started(start, tmp_path, port, key):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    lost = [join(port, key) for _ in range(2)]
    last = join(port, key)
    for former in lost:
        # Joined at once, each may have been told to start before the next one came.
        while former.hear() is not None:
            pass
    while not (tmp_path / "a").exists():
        said = last.hear()
        assert said is not None
        if "start" in said:
            last.say(started=True)
            first.says("a started")
        elif "stop" in said:
            last.say(stopped=True)


def test_a_message_in_pieces_is_one_message(start, tmp_path, port, key):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    peer = connect(port)
    text = json.dumps(hello(key, peer.hears("prove"))) + "\n"
    for letter in text:
        peer.connection.sendall(letter.encode())
    peer.hears("start")
    peer.connection.sendall(b'{"start')
    peer.connection.sendall(b'ed": true}\n{"beat": true}\n')
    first.says("a started")


def test_however_many_strangers_say_nothing_the_ranks_meet(start, tmp_path, port, key):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    # More than rank 0 may have files open.
    resource.prlimit(first.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    strangers = [socket.create_connection(("127.0.0.1", port), timeout=WAIT) for _ in range(100)]
    join(port, key).hears("start")
    for stranger in strangers:
        stranger.close()


class InThisProcess:
    """Rank 0 of two, with its limits shorter than they are."""

    def __init__(self, monkeypatch, capfd, port, key, command, **limits):
        for name, value in limits.items():
            monkeypatch.setattr(together, name, value)
        monkeypatch.setenv("DGX_SPARK_SERVER", "one")
        options = {
            "rank": 0, "names": ["a", "b"], "address": ("127.0.0.1", port), "key": key, "restarts": 0, "pause": 1,
            "health": None, "ask": None, "needs": None, "weights": "/nowhere", "compiled": None,
            "command": command,
        }  # fmt: skip
        self.lead = together.Lead(argparse.Namespace(**options))
        self.capfd = capfd

    def run(self):
        """Its exit code and what it has printed."""
        code = self.lead.run()
        return code, self.capfd.readouterr().out


@pytest.fixture
def lead(monkeypatch, capfd, port, key, tmp_path):
    return lambda **limits: InThisProcess(monkeypatch, capfd, port, key, engine(tmp_path, "a"), **limits)


def test_a_rank_that_is_there_but_does_not_start_is_named(lead, port, key):
    made = lead(STARTING=1, GRACE=1, SILENCE=2)
    stuck = join(port, key)
    beats = threading.Event()

    def live():
        with contextlib.suppress(OSError):
            while not beats.wait(0.5):
                stuck.say(beat=True)

    threading.Thread(target=live, daemon=True).start()
    code, said = made.run()
    beats.set()
    assert code == 0
    assert "FAILED: rank 1 (b) has not started within 1 s, though it is there; gave up after 1 starts" in said


def test_signs_of_life_alone_let_nobody_stay(lead, port):
    lead(SILENCE=1, BEAT=0.1)
    stranger = connect(port)
    stranger.hears("prove")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            if not stranger.stream.readline():
                return
            stranger.say(beat=True)
        pytest.fail("it may stay")


def test_a_rank_whose_power_is_cut_is_missed_though_its_connection_stays_open(lead, port, key):
    made = lead(SILENCE=1)
    silent = join(port, key)
    threading.Thread(target=lambda: (silent.hears("start"), silent.say(started=True)), daemon=True).start()
    assert "FAILED: rank 1 (b) is lost; gave up after 1 starts" in made.run()[1]


def test_what_a_former_link_still_says_is_not_of_what_runs_now(lead):
    made = lead().lead
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = [together.Link(socket.create_connection(listener.getsockname())) for _ in range(2)]
    for link in ours:
        made.inbox.put(("joined", 1, link))
    made.inbox.put(("said", 1, (ours[0], "ended", 1)))
    made.inbox.put(("said", 1, (ours[1], "started", True)))
    assert [made._next(1) for _ in range(4)] == [None, ("lost", 1, ours[0]), None, ("started", 1, True)]


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other"
    path.write_text("another key\n")
    return path


def test_rank_0_lets_nobody_in_who_does_not_know_the_key(start, tmp_path, port, key, other):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    assert join(port, other).hears("refused") == "key"
    # What rank 0 proves to a rank does not make a rank of anybody.
    assert join(port, key, role="lead").hears("refused") == "key"
    listened = connect(port)
    said = hello(key, listened.hears("prove"))
    again = connect(port)
    again.hears("prove")
    again.say(**said)
    assert again.hears("refused") == "key"
    assert not (tmp_path / "a").exists()
    listened.say(**said)
    listened.hears("start")


@pytest.mark.parametrize(
    "noise", [b"x" * 10_000, b"[1]\n", b"[" * 4000 + b"\n", b"\xff\n", b'{"rank": 1}\n', b"{}\n{}\n"]
)
def test_noise_on_rank_0s_port_is_hung_up_on_and_does_no_harm(start, tmp_path, port, key, noise):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1 (b)")
    stranger = connect(port)
    stranger.hears("prove")
    stranger.connection.sendall(noise)
    with contextlib.suppress(ConnectionResetError):
        while (said := stranger.hear()) is not None:
            assert said == {"refused": "server"}
    join(port, key).hears("start")


def test_a_rank_obeys_nobody_who_does_not_know_the_key(start, tmp_path, port, key, other):
    with socket.create_server(("127.0.0.1", port)) as listener:
        second = start(1, engine(tmp_path, "b"))
        for lie in (
            lambda said: {"start": True},
            lambda said: {"proof": said["proof"], "start": True},
            lambda said: {"proof": proof(other, "lead", "one", 1, "theirs", said["asking"])},
            lambda said: {"refused": "dgx-spark: FAILED: a line of a log"},
        ):
            impostor = Peer(listener.accept()[0])
            impostor.say(prove="theirs")
            said = impostor.hear()
            assert said["proof"] == proof(key, "rank", "one", 1, "theirs", said["asking"])
            impostor.say(**lie(said))
            impostor.say(start=True)
            second.says("rank 0 (a) says: nothing that proves it to be rank 0")
        lead = led(listener, key)
        lead.say(start=True)
        assert lead.hears("started")


def test_the_other_ranks_stop_without_rank_0_and_wait_for_it(start, tmp_path):
    first = start(0, engine(tmp_path, "a"))
    second = start(1, engine(tmp_path, "b"))
    second.says("b started")
    first.says("a started")
    former = pid(tmp_path, "b")
    first.process.kill()
    os.kill(pid(tmp_path, "a"), signal.SIGKILL)
    second.says("rank 0 (a) is lost: stopping")
    start(0, engine(tmp_path, "a"))
    second.says("b started")
    assert not alive(former)


class Follower(together.Follow):
    def __init__(self, port, key, command):
        options = {
            "rank": 1,
            "names": ["a", "b"],
            "address": ("127.0.0.1", port),
            "key": key,
            "weights": "/nowhere",
            "compiled": None,
        }
        super().__init__(argparse.Namespace(**options, command=command))


def test_a_rank_looks_for_rank_0_soon_and_then_less_and_less_often(monkeypatch, port, key):
    waits = []

    def pause(self, seconds):
        waits.append(seconds)
        if len(waits) == 10:
            raise together.Told

    monkeypatch.setattr(Follower, "_pause", pause)
    with pytest.raises(together.Told):
        Follower(port, key, ["true"])._connect()
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.1, 2)


def test_a_rank_stops_without_a_sign_of_life_from_rank_0_and_looks_for_it_again(monkeypatch, tmp_path, port, key):
    monkeypatch.setattr(together, "SILENCE", 1)
    monkeypatch.setenv("DGX_SPARK_SERVER", "one")
    follower = Follower(port, key, engine(tmp_path, "b"))
    ended = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=lambda: ended.append(follower.run()))
        thread.start()
        silent = led(listener, key)
        silent.say(start=True)
        assert silent.hears("started")
        # Nothing more is said, and the connection stays open.
        led(listener, key).say(give_up="enough")
    thread.join(WAIT)
    assert ended == [0]


def test_ranks_of_two_servers_never_meet(start, tmp_path):
    first = start(0, engine(tmp_path, "a"))
    first.says("waiting for rank 1")
    stranger = start(1, engine(tmp_path, "b"), server="two")
    stranger.says("this is another server")
    assert not (tmp_path / "b").exists()


def test_what_the_engine_leaves_behind_is_ended(start, tmp_path):
    child = f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 1000' &"
    leaving = f"{child} while [ ! -s {tmp_path}/child ]; do :; done; exit 1"
    alone = start(0, engine(tmp_path, "a", leaving), names="a", restarts=0)
    alone.says("gave up after 1 starts")
    assert alone.ends() == 0
    assert not alive(pid(tmp_path, "child"))


def test_an_engine_is_not_started_while_what_it_needs_is_missing(start, tmp_path):
    needs = "sh -c 'echo Ray has one Spark >&2; exit 1'"
    alone = start(0, engine(tmp_path, "a"), names="a", restarts=0, needs=needs)
    alone.says("FAILED: Ray has one Spark")
    assert not (tmp_path / "a").exists()


def test_docker_stop_ends_the_engine_first(start, tmp_path):
    trap, run = "trap 'echo bye; exit 0' TERM", "while :; do sleep 0.1; done"
    alone = start(0, engine(tmp_path, "a", run, first=trap), names="a")
    alone.says("a started")
    alone.process.terminate()
    alone.says("bye")
    assert alone.ends() == 143


def test_the_engine_finds_the_weights_under_another_name_too_also_when_it_starts_again(start, tmp_path):
    weights, alias = tmp_path / "snapshots/abc", tmp_path / "models/gpt"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    for _ in range(2):
        rank = start(0, ["ls", str(alias)], names="a", weights=weights, alias=alias, restarts=0)
        rank.says("config.json")
        rank.ends()


ANSWERING = """
import http.server, os, signal, sys, threading, time
port, own, left = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'vllm:num_requests_running{model_name="a"} %.1f\\n' % (left > 0))
    def log_message(self, *args):
        pass
def answer():
    time.sleep(left)
    print("answered", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, lambda *_: answer())
threading.Thread(target=http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()
with open(own, "w") as stream:
    stream.write(str(os.getpid()))
print("engine started", flush=True)
signal.pause()
"""
"""An engine that takes some seconds to end, for a request that it has accepted."""


@pytest.fixture
def answering(start, tmp_path):
    """Two ranks whose engines run, of which the first answers a request for so many seconds once it is to end."""

    def make(seconds, drain=20):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        engines = [sys.executable, "-c", ANSWERING, str(port), str(tmp_path / "a"), str(seconds)]
        first = start(0, engines, health=f"http://127.0.0.1:{port}/health", drain=drain)
        second = start(1, engine(tmp_path, "b"), drain=drain)
        first.says("engine started")
        second.says("b started")
        return first, second

    return make


@pytest.mark.parametrize("told", ["both", "the other"])
def test_all_ranks_stay_until_what_was_accepted_is_answered(answering, tmp_path, told):
    first, second = answering(2)
    second.process.terminate()
    if told == "both":
        first.process.terminate()
    first.says("answering what was accepted")
    assert alive(pid(tmp_path, "b"))
    first.says("answered")
    assert second.ends() == 143
    assert not alive(pid(tmp_path, "b"))


def test_an_answer_that_takes_longer_than_there_is_time_for_holds_no_rank_up(answering, tmp_path):
    _, second = answering(1000, drain=1)
    second.process.terminate()
    assert second.ends() == 143
    assert not alive(pid(tmp_path, "b"))
    # Its rank would wait for it, and whoever ends the rank.
    os.kill(pid(tmp_path, "a"), signal.SIGKILL)


def test_ranks_of_a_server_that_has_nothing_to_answer_end_at_once(answering, monkeypatch):
    first, second = answering(0, drain=1000)
    second.process.terminate()
    first.process.terminate()
    assert second.ends() == first.ends() == 143


STUCK = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"vllm:generation_tokens_total 1.0\\n")
    def do_POST(self):
        time.sleep(1000)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""An engine that is well and answers no request."""


def test_an_engine_that_answers_health_and_no_request_is_started_again_and_then_said(start, tmp_path, port):
    base = f"http://127.0.0.1:{port}"
    ask = json.dumps({"base": base, "path": "/v1/completions", "body": {"prompt": "Hello"}, "limit": 1})
    command = [sys.executable, "-c", STUCK, str(port)]
    alone = start(0, command, names="a", restarts=1, health=f"{base}/health", ask=ask)
    stuck = "FAILED: the engine is stuck: /health answers, but no request was answered within 1 s"
    alone.says(f"{stuck}; all ranks start again in 1 s (1 of 1)")
    alone.says(f"{stuck}; gave up after 2 starts")
    assert alone.ends() == 0
