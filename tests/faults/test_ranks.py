"""What runs the model dies or gets stuck, on the head, on the worker or on both: it comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from simulator import sparks
from simulator.layout import Spark
from tests.e2e.conftest import end_container, end_engine, says
from tests.e2e.steps import step
from tests.faults.trial import fault

KNOBS = "/etc/spark-knobs.json"


def chosen(pair, trial):
    """Head, worker, both, and again."""
    return [pair.nodes[:1], pair.nodes[1:], pair.nodes][trial.number % 3]


def at_once(end: Callable[[Spark, str], object], on: Sequence[Spark], name: str) -> None:
    with ThreadPoolExecutor(len(on)) as pool:
        list(pool.map(lambda spark: end(spark, name), on))


@fault("an engine's process is killed: head, worker, both", trials=3)
def test_engine_killed(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    at_once(end_engine, chosen(pair, trial), pair.container("server"))
    says(pair.nodes[0], pair.container("server"), "all ranks start again in 5 s (1 of 3)")
    trial.ends_right(pair)
    trial.ends_gone(pair)


@fault("a rank's container is killed, and joins again before its loss was seen: head, worker, both", trials=3)
def test_rank_killed(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    at_once(end_container, chosen(pair, trial), pair.container("server"))
    trial.ends_right(pair)
    trial.ends_gone(pair)


OUT_OF_MEMORY = """
main=$(docker inspect --format '{{{{.State.Pid}}}}' {server})
group=/sys/fs/cgroup/memory$(grep :memory: /proc/$main/cgroup | cut -d: -f3)
used=$(grep '^total_rss ' $group/memory.stat | cut -d' ' -f2)
limit=$((used + (16 << 20)))
docker update --memory $limit --memory-swap $limit {server} >&2
engine=$(pgrep -P $main | head -1)
echo 1000 > /proc/$engine/oom_score_adj
docker exec {server} python3 -c 'kept = [bytearray(1 << 20) for _ in range(256)]' >&2
docker update --memory 64g --memory-swap 64g {server} >&2
grep '^oom_kill ' $group/memory.oom_control
test -e /proc/$engine || echo ended
"""
"""The container may have little more than it has, and something in it wants more: the kernel ends what it is told to
end first. Source: cgroup-v1/memory.txt."""


@fault("an engine is ended by the kernel for want of memory: head, worker", trials=2)
def test_out_of_memory(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    spark, server = pair.nodes[trial.number % 2], pair.container("server")
    step("the kernel ends it")
    said = sparks.inside(spark, "sh", "-c", OUT_OF_MEMORY.format(server=server), check=False)
    assert "oom_kill 0" not in said, said
    assert "ended" in said, said
    trial.ends_right(pair)
    trial.ends_gone(pair)


ENGINES = ("vllm", "sglang")
"""Their counters are not the same."""


def wedge(spark, server, *, wedged=True):
    write = f'import sys; open("{KNOBS}", "w").write(sys.stdin.read())'
    sparks.on(spark, f"docker exec -i {server} python3 -c '{write}'", stdin=json.dumps({"wedged": wedged}))


def stuck(pair, engine):
    """The engine of one that serves answers /health, and no request any more."""
    pair.configure(engine=engine, serving={"executor": "mp", "stuckAfter": 10, "restarts": 1})
    pair.up()
    wedge(pair.nodes[0], pair.container("server"))
    says(pair.nodes[0], pair.container("server"), "FAILED: the engine is stuck", limit=120)


@fault("an engine that answers /health and no request, once (vLLM, SGLang)", trials=2)
def test_wedged(pair, trial):
    trial.among(pair.nodes)
    stuck(pair, ENGINES[trial.number])
    wedge(pair.nodes[0], pair.container("server"), wedged=False)
    trial.ends_right(pair)
    trial.ends_gone(pair)


@fault("an engine that answers /health and no request, again and again: it stops, says so, and `up` brings it back",
       trials=1)  # fmt: skip
def test_wedged_for_good(pair, trial):
    trial.among(pair.nodes)
    stuck(pair, ENGINES[trial.number])
    for spark in pair.nodes:
        says(spark, pair.container("server"), "gave up after 2 starts", limit=120)
    step("a preview shows what has stopped")
    shown = pair.preview()
    assert {f"cluster-server-{spark.name}": shown[f"cluster-server-{spark.name}"] for spark in pair.nodes} == {
        "cluster-server-spark-1": "update",
        "cluster-server-spark-2": "update",
    }
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)
