"""Whatever has happened to a run or to the state: the next `up` and `destroy` end right, and nobody else is touched."""

from __future__ import annotations

import json
import random
import subprocess
import threading

import pytest

from ops import destroy
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import SOME_IMAGE, Stack, container_id, left_behind, step

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


def unlocked(stack: Stack) -> None:
    """The CLI keeps a lock beside its state, also when it is killed."""
    if "simulator.engine" not in stack.argv:
        stack("cancel", "--yes", "--stack", stack.name, check=False)


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


@pytest.mark.long
def test_a_state_of_yesterday_and_a_container_of_others_under_our_name(alone, third):
    server = alone.container("server")
    alone.configure(serving={"maxModelLen": 4096})
    alone.up()
    (path,) = (alone.folder / "state/.pulumi/stacks").rglob(f"{alone.name}.json")
    yesterday = path.read_text()
    alone.configure(serving={"maxModelLen": 4096}, monitoring=True)
    alone.up()
    path.write_text(yesterday)
    shown = alone("preview", "--stack", alone.name).text
    # Its server is today's, too.
    assert "dgx-spark-alone-grafana" in shown
    assert f"{server}," not in shown
    alone.up()
    assert alone.complete()["choices"]
    assert alone.is_clean()

    step("with the settings of then, too: what is wanted no more goes")
    path.write_text(yesterday)
    alone.configure(serving={"maxModelLen": 4096}, monitoring=False)
    alone.up()
    assert sparks.on(third, "docker ps -a --format '{{.Names}}'").split() == [server]
    assert alone.preview() == {}
    assert alone.is_clean()

    step("under our name, and somebody else's")
    alone.destroy()
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


def killed_at_line(stack: Stack, line: int, *words: str) -> str:
    """Pulumi, killed when it has said so many lines; what it said."""
    engine = subprocess.Popen(
        [*stack.argv, *words, "--yes", "--skip-preview", "--stack", stack.name],
        env=stack.environment, cwd=stack.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert engine.stdout
    said = "".join(engine.stdout.readline() for _ in range(line))
    engine.kill()
    engine.wait()
    unlocked(stack)
    return said


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random_moments_end_right_with_one_plain_run(alone, third, seed):
    chance, before = random.Random(seed), left_behind(third)
    alone.configure(monitoring=True)
    said = killed_at_line(alone, chance.randrange(2, 40), "up")
    if chance.random() < 0.5:
        said += killed_at_line(alone, chance.randrange(2, 40), "up")
    alone.up()
    assert alone.complete()["choices"], said
    assert alone.is_clean(), said
    said = killed_at_line(alone, chance.randrange(2, 40), "destroy")
    alone.destroy()
    assert left_behind(third) == before, said
