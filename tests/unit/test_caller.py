"""Scripts that run for as long as somebody reads what they print end when nobody does: sshd does not tell them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from components.remote import parcel

STACK = "organization/dgx-spark/test"


@pytest.fixture
def begun(host):
    """A script on this Spark, as its caller has it: what it prints can be read, or no more."""
    running = []

    def begin(script, **given):
        command = parcel.command(script, "apply", limit=600).replace("python3", sys.executable, 1)
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.environment(), text=True
        )
        running.append(process)
        process.stdin.write(host.text(script, given))
        process.stdin.close()
        return process

    yield begin
    for process in running:
        process.terminate()
        process.wait()


def test_logs_of_a_container_that_says_nothing_are_followed_no_longer_than_somebody_reads_them(host, begun):
    # `docker logs` of a quiet container: it holds its lock for as long as it lives.
    host.put("quiet", "")
    host.program(
        "docker",
        f"[ $1 = ps ] && {{ echo one server; echo two server; exit; }}\n[ $4 = two ] && echo loading\n"
        f"exec flock --no-fork --shared {host.root}/quiet sleep 100",
    )
    logs = begun("logs.py", stack=STACK, components=[], lines=10, follow=True, since="")
    assert json.loads(logs.stdout.readline()) == ["server", "loading"]
    logs.stdout.close()
    logs.wait(timeout=20)
    subprocess.run(["flock", "--timeout=20", host.root / "quiet", "true"], check=True)


def test_a_rank_is_watched_no_longer_than_somebody_reads_what_is_seen(host, begun):
    server = {"Id": "1", "Names": ["/server"], "Created": 1, "State": "running"}
    state = {
        "Running": True,
        "Restarting": False,
        "Status": "running",
        "ExitCode": 0,
        "StartedAt": "2026-11-28T00:00:00Z",
    }
    seen = {"State": state, "RestartCount": 0, "Image": "i", "Config": {}}
    host.docker({"/containers/json": [server], "/containers/server/json": seen, "/containers/server/logs": ""})
    watch = begun("watch.py", stack=STACK, components=["server"], lines=10, several=True)
    assert [list(json.loads(watch.stdout.readline())) for _ in range(2)] == [["log"], ["begun"]]
    watch.stdout.close()
    watch.wait(timeout=20)
