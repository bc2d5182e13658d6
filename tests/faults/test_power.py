"""A Spark loses power before, during and after each phase of `up`: in turn the head and the worker."""

from __future__ import annotations

from simulator import network, sparks
from tests.e2e.conftest import end_container
from tests.e2e.steps import step
from tests.faults.power import slow_fabric, slow_hub, to_come_anew, wait_for_weights, without_power
from tests.faults.trial import fault
from tests.faults.under_way import UnderWay, pulumi


def ends_with_an_error(run):
    """Within under_way.LIMIT, though no word comes from the Spark that is gone."""
    step("up ends")
    done = run.rest()
    assert done.code != 0, done.text
    assert "Traceback" not in done.text


@fault("Spark powered off before `up`", trials=2)
def test_before(pair, trial):
    trial.among(pair.nodes)
    lost = pair.nodes[trial.number % 2]
    with without_power(lost):
        assert f"{lost.name} (nvidia@{lost.address}:22): it can't be reached" in pair.refusal()
        assert pair.up(check=False).code != 0
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off while it is asked for its facts", trials=2)
def test_probe(pair, trial):
    trial.among(pair.nodes)
    run = UnderWay(pair, pulumi(pair, "up"))
    run.says("Updating")
    with without_power(pair.nodes[trial.number % 2]):
        ends_with_an_error(run)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off while images are looked at", trials=2)
def test_image(pair, trial):
    trial.among(pair.nodes)
    run = UnderWay(pair, pulumi(pair, "up"))
    run.says("cluster-fabric-spark-1 created")
    with without_power(pair.nodes[trial.number % 2]):
        ends_with_an_error(run)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off during the download", trials=2)
def test_download(pair, trial):
    trial.among(pair.nodes)
    to_come_anew(pair)
    with slow_hub():
        run = UnderWay(pair, pulumi(pair, "up"))
        wait_for_weights(pair.nodes[0], trial.chance.uniform(0.1, 0.6))
    with without_power(pair.nodes[trial.number % 2]):
        ends_with_an_error(run)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off during the copy of weights", trials=2)
def test_copy(pair, trial):
    trial.among(pair.nodes)
    to_come_anew(pair)
    head, worker = pair.nodes
    with slow_fabric(head, 50):
        run = UnderWay(pair, pulumi(pair, "up"))
        wait_for_weights(worker, trial.chance.uniform(0.1, 0.5))
        with without_power(pair.nodes[trial.number % 2]):
            ends_with_an_error(run)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off while the server starts", trials=2)
def test_start(pair, trial):
    trial.among(pair.nodes)
    with sparks.turned(pair.nodes, load_seconds=20):
        run = UnderWay(pair, pulumi(pair, "up"))
        run.says("cluster-server-spark-2 created")
        with without_power(pair.nodes[trial.number % 2]):
            ends_with_an_error(run)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("Spark powered off while it serves: back by itself when it is on again", trials=3)
def test_serving(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    with without_power(pair.nodes[trial.number % 2]):
        if trial.number > 1:
            # Long enough for the other rank to miss it.
            server = pair.nodes[1 - trial.number % 2]
            says = {0: "rank 0 (spark-1) is lost", 1: "rank 1 (spark-2) is lost"}[trial.number % 2]
            log = f"docker logs {pair.container('server')} 2>&1"
            sparks.wait_for(lambda: says in sparks.on(server, log), says, limit=90)
    trial.ends_right(pair)
    trial.ends_gone(pair)


@fault("power back on the head alone, whose end of the cable has no address until the other Spark is on", trials=1)
def test_head_first(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    head, server = pair.nodes[0], pair.container("server")

    def waits():
        return sparks.on(head, f"docker logs {server} 2>&1").count("waiting for rank 1 (spark-2)")

    network.cable(head, port=None)
    try:
        before = waits()
        end_container(head, server)
        sparks.wait_for(lambda: waits() > before, "rank 0 to wait for the other", limit=90)
    finally:
        network.cable(head, port=1)
    trial.ends_right(pair)
    trial.ends_gone(pair)
