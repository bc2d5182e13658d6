"""The hermetic engine's ways to a Spark: to its Docker, and for commands there."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from simulator.engine.providers import ProviderError, command, docker_types
from simulator.engine.providers.docker_types import Connection, Daemons

SSH = f"""#!{sys.executable}
import os, signal, socket, sys
signal.alarm(60)
path = sys.argv[sys.argv.index("-L") + 1].split(":")[0]
open("PID", "w").write(str(os.getpid()))
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
ANSWER
while True:
    server.accept()[0].close()
"""
"""Forwards the socket of a Docker that is being restarted."""

ANSWER = """
body = b'{"ApiVersion": "1.47", "Version": "28.2.2"}'
server.accept()[0].close()  # a look whether anybody listens
with server.accept()[0] as asked:
    asked.recv(65536)
    asked.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
"""
"""Before that: its version, and the connection ends."""


@pytest.fixture
def forwarded(tmp_path, monkeypatch):
    """Puts an ssh on PATH that does as it is told; its pid is in the file `pid`."""

    def put(answer):
        (tmp_path / "ssh").write_text(SSH.replace("ANSWER", answer).replace("PID", str(tmp_path / "pid")))
        (tmp_path / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def test_a_docker_that_does_not_answer_leaves_no_ssh_behind(tmp_path, forwarded):
    forwarded("")
    with pytest.raises(ProviderError, match="error during connect: ssh://nvidia@spark-1") as caught:
        Connection("ssh://nvidia@spark-1", [])
    assert str(caught.value).count("error during connect") == 1
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_a_connection_that_breaks_later_is_an_error_in_words(forwarded):
    forwarded(ANSWER)
    connection = Connection("ssh://nvidia@spark-1", [])
    try:
        with pytest.raises(ProviderError, match=r"error during connect: ssh://nvidia@spark-1: .*Connection"):
            connection.client.inspect_container("any")
    finally:
        connection.close()


OPENS = """
from simulator.engine.providers.docker_types import Connection
Connection("ssh://nvidia@spark-1", [])
print(flush=True)
input()
"""
ENDS = """
if "-N" not in sys.argv:  # else it looks at no input
    sys.stdin.read()
    sys.exit()
"""


def test_an_engine_that_is_killed_takes_its_ssh_with_it(tmp_path, forwarded):
    forwarded(ANSWER + ENDS)
    engine = subprocess.Popen([sys.executable, "-c", OPENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with engine:
        engine.stdout.readline()
        ssh = os.pidfd_open(int((tmp_path / "pid").read_text()))
        engine.kill()
    assert select.select([ssh], [], [], 30)[0]
    os.close(ssh)


def test_a_spark_that_is_slow_to_answer_keeps_no_other_waiting(monkeypatch):
    dialling, free = threading.Event(), threading.Event()

    class Dialled:
        def __init__(self, host, options):
            self.client = host
            if host == "ssh://slow":
                dialling.set()
                assert free.wait(30)

    monkeypatch.setattr(docker_types, "Connection", Dialled)
    daemons = Daemons()
    slow = threading.Thread(target=daemons.client, args=({"host": "ssh://slow"},))
    slow.start()
    assert dialling.wait(30)
    assert daemons.client({"host": "ssh://quick"}) == "ssh://quick"
    assert slow.is_alive()
    free.set()
    slow.join()


def test_a_command_offers_a_spark_no_key_exchange_that_gos_ssh_lacks():
    spark = {"host": "127.0.0.1", "port": 22, "user": "nvidia", "dialErrorLimit": 1, "perDialTimeout": 1}
    with command.ssh(spark) as (ssh, *words):
        shown = subprocess.run([ssh, "-G", *words], check=True, capture_output=True, text=True).stdout
    offered = dict(line.split(" ", 1) for line in shown.splitlines())["kexalgorithms"].split(",")
    assert offered[0] == "curve25519-sha256"
    assert not any("sntrup" in algorithm for algorithm in offered)
