"""The hook before something of Docker's is made: it looks on the Spark, whatever else the program waits for."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from pulumi import Output, ResourceHookArgs

from components.programs import adopting, session
from components.remote.openssh import Target
from components.resources import clearing

SPARK = Target("spark-1", "10.0.0.1", 22, "nvidia", "ssh-ed25519 AAAA", None)


def run_hook(given, monkeypatch, said=""):
    """What clear.py was asked; every thread of the event loop waits for a resource meanwhile, as Pulumi's SDK does."""
    asked = []
    monkeypatch.setattr(session, "run", lambda *words, limit, more: (asked.append(words), said)[1])
    made, container = threading.Event(), "docker:index/container:Container"

    async def program():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        registered = loop.run_in_executor(None, made.wait)
        (hook,) = clearing.hooks("h", SPARK, "org/project/stack").before_create
        args = ResourceHookArgs(urn="u", id="", name="n", type=container, new_inputs=given())
        try:
            await asyncio.wait_for(hook(args), 10)
        finally:
            made.set()
            await registered

    # asyncio.run would leave the thread without the loop that Pulumi's mocks use.
    loop = asyncio.new_event_loop()
    loop.run_until_complete(program())
    loop.close()
    return asked


def test_the_look_waits_for_no_thread_that_waits_for_the_resource(monkeypatch):
    ((spark, script, inputs),) = run_hook(lambda: {"name": "c"}, monkeypatch)
    assert (spark, script) == (asdict(SPARK), "clear.py")
    assert inputs == {"stack": "org/project/stack", "kind": "container", "name": "c", "wanted": None}


def secret():
    return {"name": "c", "uploads": [{"file": "/key", "content": Output.secret("k")}]}


def test_a_run_that_adopts_asks_with_all_that_is_wanted_and_notes_the_answer(monkeypatch, tmp_path):
    monkeypatch.setenv(adopting.VARIABLE, str(tmp_path))
    found = {"id": "0123", "differs": []}
    ((_, _, inputs),) = run_hook(secret, monkeypatch, said=f"welcome\n{json.dumps(found)}\n")
    assert inputs["wanted"] == {"name": "c", "uploads": [{"file": "/key", "content": "k"}]}
    assert list(adopting.noted(tmp_path)) == [("spark-1", "c", found)]


@pytest.mark.parametrize("said", ["", "\n"])
def test_of_a_container_that_is_not_there_nothing_is_noted(monkeypatch, tmp_path, said):
    monkeypatch.setenv(adopting.VARIABLE, str(tmp_path))
    run_hook(lambda: {"name": "c"}, monkeypatch, said=said)
    assert list(adopting.noted(tmp_path)) == []
