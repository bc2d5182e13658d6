"""The SSH connection breaks during each script that a stack runs, and during Docker's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from components.plan.engines import trtllm
from simulator import sparks
from tests.e2e.conftest import Run
from tests.e2e.steps import step
from tests.e2e.test_images import SMALL
from tests.faults.conftest import PLAIN, Life
from tests.faults.cut import cutting
from tests.faults.trial import Trial, fault
from tests.faults.under_way import UnderWay, pulumi

LATEST = 0.15
"""Seconds from a script's beginning to the cut, at most; most take not much longer."""

COPIED = "registry.example/engine:1"

CONFIGS: dict[str, dict[str, Any]] = {
    "mp": {"serving": PLAIN},
    "measured": {"serving": PLAIN, "fabric": {"minTcpGbps": 0.001}},
    "ray": {},
    "swarm": {"engine": "trtllm"},
    "copied": {"engine": "trtllm", "serving": {"launcher": "mpi"}, "image": {"name": COPIED, "source": "copy"}},
    "built": {
        "engine": "sglang",
        "image": {"source": "build", "dockerfile": str(SMALL), "buildArgs": {"VLLM_REF": "v0.19.0"}},
    },
}

DOCKERS = ("dial-stdio", "docker") if os.environ.get("SPARK_ENGINE") == "pulumi" else ("cat", "")
"""What runs on a Spark for as long as Docker is asked there: the hermetic engine forwards its socket beside that."""

MADE = (
    # configuration, script or program, another word of its command line, on the head (0) or the second Spark (1)
    ("mp", "probe.py", "apply", 1),
    ("mp", "hold.py", "apply", 0),
    ("mp", "node.py", "apply", 1),
    ("mp", "fabric.py", "apply", 0),
    ("mp", "image.py", "apply", 1),
    ("mp", "copy_key.py", "apply", 1),
    ("mp", "copy_access.py", "apply", 0),
    ("mp", "weights.py", "apply", 0),
    ("mp", "weights.py", "apply", 1),
    ("mp", "copy_server.py", "", 0),
    ("mp", "rank_key.py", "apply", 0),
    ("mp", "evict.py", "apply", 1),
    ("mp", "clear.py", "apply", 1),
    ("mp", "watch.py", "apply", 0),
    ("mp", "watch.py", "apply", 1),
    ("mp", *DOCKERS, 1),
    ("measured", "bandwidth.py", "apply", 1),
    ("ray", "ray_formed.py", "apply", 0),
    ("swarm", "swarm_host.py", "apply", 1),
    ("swarm", "swarm_manager.py", "apply", 0),
    ("swarm", "swarm_worker.py", "apply", 1),
    ("swarm", "swarm_members.py", "apply", 0),
    ("copied", "image_copy.py", "apply", 1),
    ("copied", "save", "docker", 0),
    ("built", "image_build.py", "apply", 0),
)

REMOVED = (
    ("mp", "node.py", "remove", 1),
    ("mp", "image.py", "remove", 1),
    ("mp", "copy_key.py", "remove", 1),
    ("mp", "copy_access.py", "remove", 0),
    ("mp", "weights.py", "remove", 1),
    ("mp", "evict.py", "remove", 0),
    ("mp", *DOCKERS, 1),
    ("swarm", "swarm_host.py", "remove", 1),
    ("swarm", "swarm_worker.py", "remove", 1),
    ("swarm", "swarm_manager.py", "remove", 0),
)


@pytest.fixture(scope="module", autouse=True)
def image_of_the_head_alone(life: Life) -> Iterator[None]:
    head, second = life.stack.nodes
    image = trtllm.IMAGE.partition("@")[0]
    sparks.on(head, f"id=$(docker create {image} true) && docker commit $id {COPIED} && docker rm $id")
    yield
    life.stack.destroy()
    for spark in (head, second):
        sparks.on(spark, f"docker rmi {COPIED}", check=False)


def prepared(life: Life, trial: Trial, config: str) -> None:
    """Nothing of the stack is there, and no weights."""
    life.is_gone(trial)
    life.stack.configure(**CONFIGS[config])
    for spark in life.stack.nodes:
        sparks.on(spark, "rm -rf ~/.cache/huggingface/hub/models--openai--gpt-oss-120b")
    sparks.on(life.stack.nodes[1], f"docker rmi -f {COPIED}", check=False)


def cut_once(life: Life, where: tuple[str, str, str, int], command: str, later: float) -> tuple[bool, Run]:
    _, script, word, number = where
    step(f"cut {later:.2f} s after the beginning of {script}")
    with cutting(life.stack.nodes[number], script, word, later) as cut:
        run = UnderWay(life.stack, pulumi(life.stack, command)).rest()
    print(run.text)
    assert "Traceback" not in run.text
    return cut.done, run


def named(where: tuple[str, str, str, int]) -> str:
    return "-".join(map(str, where))


@fault("an SSH connection cut while a script, or Docker, is asked over it, in `up`", trials=1)
@pytest.mark.parametrize("where", MADE, ids=named)
def test_in_up(life, trial, where):
    for later in (trial.chance.uniform(0, LATEST), 0):
        prepared(life, trial, where[0])
        done, _ = cut_once(life, where, "up", later)
        if done:
            break
    assert done, "it did not run"
    trial.ends_right(life.stack, life.stack.up)


@fault("an SSH connection cut while a script, or Docker, is asked over it, in `destroy`", trials=1)
@pytest.mark.parametrize("where", REMOVED, ids=named)
def test_in_destroy(life, trial, where):
    for later in (trial.chance.uniform(0, LATEST), 0):
        prepared(life, trial, where[0])
        life.stack.up()
        done, _ = cut_once(life, where, "destroy", later)
        if done:
            break
    assert done, "it did not run"
    trial.ends_gone(life.stack)
