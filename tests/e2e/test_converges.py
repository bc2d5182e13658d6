"""Whatever has happened to a run or to the state: the next `up` and `destroy` end right, and nobody else is touched."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any

import pytest

from ops import adopt, destroy
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import SOME_IMAGE, Stack, container_id, left_behind, step, unlocked

pytestmark = pytest.mark.e2e


def killed_when_made(stack: Stack, spark, name: str) -> None:
    """An `up` whose engine is killed at the moment when Docker has made this container, before it is started."""
    listening = ["docker", "events", "--filter", "event=create", "--filter", f"container={name}", "--format", "{{.ID}}"]
    argv = [*sparks.ssh_argv(spark), " ".join(f"'{word}'" for word in listening)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as events:
        assert events.stdout
        engine = subprocess.Popen(
            [*stack.argv, "up", "--yes", "--skip-preview", "--stack", stack.name],
            env=stack.environment, cwd=stack.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        # An engine that ends by itself has made none.
        threading.Thread(target=lambda: (engine.wait(), events.kill()), daemon=True).start()
        made = events.stdout.readline()
        engine.kill()
        said, _ = engine.communicate()
        assert made, said
    unlocked(stack)


def lose_state(stack: Stack) -> None:
    (path,) = (stack.folder / "state/.pulumi/stacks").rglob(f"{stack.name}.json")
    path.unlink()
    stack("stack", "init", stack.name)


def test_an_interrupted_run_and_a_lost_state_are_put_right_by_the_next_up(alone, third):
    before, server = left_behind(third), alone.container("server")
    step("the engine is killed while a container is made")
    killed_when_made(alone, third, server)
    assert "dgx-spark-alone-server" in sparks.on(third, "docker ps -a --format '{{.Names}}'")
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()

    step("the state is lost")
    serving = container_id(third, server)
    lose_state(alone)
    shown = alone("preview", "--stack", alone.name).text
    assert f"left over from an interrupted run or a lost state: {server}, will be removed and made anew" in shown
    assert container_id(third, server) == serving
    said = alone.up().text
    assert container_id(third, server) != serving
    assert "files verified" not in said, "weights that were verified once are not read again"
    assert alone.complete()["choices"]
    assert alone.is_clean()

    step("what a state never knew goes with the stack, and nothing of others does")
    label = "--label dgx-spark.stack=organization/dgx-spark/alone --label dgx-spark.component=ray-head"
    run = f"docker run -d --entrypoint sleep {SOME_IMAGE} 100000"
    sparks.on(third, run.replace("-d", f"-d --name dgx-spark-alone-ray-head {label}", 1))
    sparks.on(third, f"docker volume create {label.split(' --label', 1)[0]} dgx-spark-alone-ray")
    sparks.on(third, run.replace("-d", "-d --name stranger -v strangers:/x", 1))
    alone.destroy()
    assert sparks.on(third, "docker rm -f stranger && docker volume rm strangers").split() == ["stranger", "strangers"]
    assert left_behind(third) == before


class Asked:
    """Asks the endpoint without a pause while it watches; `failed`: what it was told otherwise than 200."""

    def __init__(self, stack: Stack, outputs: dict[str, Any]) -> None:
        self.count, self.failed = 0, []
        self._stack, self._outputs, self._over = stack, outputs, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.wait(0.2):
            self.count += 1
            if not self._stack.answers(self._outputs):
                self.failed.append(self.count)

    def __enter__(self) -> Asked:
        self._thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self._over.set()
        self._thread.join()


SERVED = {
    "ray": {"monitoring": True},
    "mp": {"serving": {"executor": "mp"}, "chat": True},
    "sglang": {"engine": "sglang"},
}


@pytest.mark.long
@pytest.mark.parametrize("how", SERVED)
def test_what_serves_is_taken_over_without_a_restart_when_the_state_is_lost(how, simulated, tmp_path, capsys):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, how, pair, **SERVED[how])
    where = of(Project(stack.folder, stack.environment), stack.name)
    listed = "docker ps --no-trunc --format '{{.ID}} {{.Names}}' | sort"
    stack("config", "set", "--secret", "--path", "serving.env.TOKEN", "of-nobody", "--stack", how)
    try:
        stack.up()
        running, outputs = [sparks.on(spark, listed) for spark in pair], stack.outputs()
        step("the state is lost")
        lose_state(stack)
        with Asked(stack, outputs) as asked:
            assert adopt.adopt(where, lambda _question: True)
            said = capsys.readouterr().out
            assert [sparks.on(spark, listed) for spark in pair] == running
            assert f"spark-1: {stack.container('server')} was taken over as it runs" in said
            assert "made anew" not in said
            assert stack.is_clean()
        assert asked.count > 10
        assert asked.failed == []

        step("what comes later is as ever")
        stack.configure(**{**SERVED[how], "serving": {**SERVED[how].get("serving", {}), "maxModelLen": 4096}})
        assert stack.preview()[f"cluster-server-{pair[0].name}"] == "replace"
        stack.up()
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_what_runs_otherwise_than_wanted_is_made_anew_when_the_rest_is_taken_over(alone, third, capsys):
    server = alone.container("server")
    alone.configure(monitoring=True)
    alone.up()
    running = container_id(third, server), container_id(third, alone.container("grafana"))
    lose_state(alone)
    alone.configure(monitoring=True, serving={"maxModelLen": 4096})
    assert adopt.adopt(of(Project(alone.folder, alone.environment), alone.name), lambda _question: True)
    assert container_id(third, server) != running[0]
    assert container_id(third, alone.container("grafana")) == running[1]
    assert f"{server} was made anew, since it was not as it is wanted in: command" in capsys.readouterr().out
    assert alone.complete()["choices"]
    assert alone.is_clean()


@pytest.mark.long
def test_a_swarm_that_no_state_knows_is_made_anew_or_goes(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    stack = Stack(tmp_path, "swarm", pair, engine="trtllm")
    services = "docker service ls --format '{{.Name}}' | sort; docker secret ls -q; docker config ls -q"
    try:
        stack.up()
        step("the state is lost, and the same is wanted")
        lose_state(stack)
        shown = stack("preview", "--stack", stack.name).text
        again = [line for line in shown.splitlines() if "made anew" in line]
        assert any(f"service {stack.container('server')}-{pair[0].name}" in line for line in again), shown
        stack.up()
        assert stack.complete()["choices"]
        assert stack.is_clean()

        step("the state is lost, and another engine is wanted")
        lose_state(stack)
        stack.configure(engine="sglang")
        assert "will be removed" in stack("preview", "--stack", stack.name).text
        stack.up()
        assert sparks.on(pair[0], services) == ""
        assert stack.complete()["choices"]
        assert stack.is_clean()
    finally:
        stack.destroy()
    assert [left_behind(spark) for spark in pair] == before


@pytest.mark.long
def test_a_container_of_others_under_our_name_is_refused_and_left_alone(alone, third):
    server = alone.container("server")
    sparks.on(third, f"docker run -d --name {server} --entrypoint sleep {SOME_IMAGE} 100000")
    try:
        assert f"spark-3: has a container {server}" in alone.refusal()
    finally:
        assert json.loads(sparks.on(third, f"docker inspect {server}"))[0]["State"]["Running"]
        sparks.on(third, f"docker rm -f {server}")


@pytest.mark.long
def test_with_a_spark_switched_off_the_rest_goes_and_a_second_destroy_finishes(simulated, tmp_path, capsys):
    head, second = simulated[:2]
    before = left_behind(head), left_behind(second)
    stack = Stack(tmp_path, "parted", [head, second], engine="sglang")
    where = of(Project(stack.folder, stack.environment), stack.name)
    try:
        stack.up()
        sparks.power_off(second)
        try:
            assert not destroy.destroy(where, lambda _question: True)
            said = capsys.readouterr().out
            assert "spark-2 keeps, until it is back: dgx-spark-parted-server; and the stack's lease" in said
            assert left_behind(head) == before[0]
        finally:
            sparks.power_on(second)
            sparks.wait_until_up(sparks.existing())
        step("it is back")
        assert "dgx-spark-parted-server" in left_behind(second)["containers"]
        assert destroy.destroy(where, lambda _question: True)
    finally:
        stack.destroy()
    assert (left_behind(head), left_behind(second)) == before


def test_a_stack_whose_state_is_lost_is_taken_away_by_its_label(alone, third):
    before = left_behind(third)
    alone.up()
    lose_state(alone)
    assert destroy.destroy(of(Project(alone.folder, alone.environment), alone.name), lambda _question: True)
    assert left_behind(third) == before


@pytest.mark.long
def test_the_second_of_two_ups_of_one_stack_is_told_who_runs_the_first(alone, third, tmp_path_factory):
    other = Stack(tmp_path_factory.mktemp("checkout"), alone.name, [third])
    sparks.set_knobs(third, load_seconds=20)
    first = subprocess.Popen(
        [*alone.argv, "up", "--yes", "--skip-preview", "--stack", alone.name],
        env=alone.environment, cwd=alone.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert first.stdout
    while "cluster-server-spark-3 created" not in first.stdout.readline():
        assert first.poll() is None
    second = other.up(check=False)
    assert second.code != 0
    assert "spark-3: another `up` of this stack is under way: root@" in second.text
    said, _ = first.communicate()
    assert first.returncode == 0, said
    assert alone.is_clean()
