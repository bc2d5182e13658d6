"""Steps that edit ~/.ssh/authorized_keys of one Spark at once."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.remote import parcel
from simulator import sparks
from simulator.layout import Spark
from tests.faults.trial import fault

STACK = "organization/dgx-spark/keys"
READ = "cat ~/.ssh/authorized_keys; ls -A ~/.ssh"


def edit(spark: Spark, verb: str, number: int) -> None:
    kind = f"image-{number}"
    inputs = {
        "keys": [f"ssh-ed25519 KEY{number} dgx-spark:{STACK}:{kind}"],
        "key": kind,
        "image": "sha256:1",
        "sources": ["192.168.177.2"],
        "record": {"stack": STACK, "kind": kind, "spec": "", "generation": ""},
    }
    argv = [*sparks.ssh_argv(spark), parcel.command("copy_access.py", verb, limit=60)]
    done = subprocess.run(argv, input=json.dumps(parcel.pack("copy_access.py", inputs)), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def before(simulated: list[Spark]) -> str:
    return sparks.on(simulated[2], READ)


@fault("two steps edit authorized_keys of one Spark at once: one adds and one takes away", trials=40, short=2)
def test_at_once(third, before, trial):
    edit(third, "apply", 1)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(edit, [third, third], ["remove", "apply"], [1, 2]))
    text = sparks.on(third, READ)
    assert (text.count("KEY1 "), text.count("KEY2 ")) == (0, 1)
    edit(third, "remove", 2)
    assert sparks.on(third, READ) == before
