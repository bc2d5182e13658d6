"""A disk that becomes full after the preview has found room on it: ENOSPC, from the kernel."""

from __future__ import annotations

from simulator import sparks
from tests.e2e.steps import step
from tests.faults.power import slow_fabric, slow_hub, to_come_anew, wait_for_weights
from tests.faults.small_disk import disk, docker_disk
from tests.faults.trial import fault
from tests.faults.under_way import UnderWay, pulumi

FULL = "No space left on device"
CACHE = ".cache/huggingface"


def ends_with_the_reason(run):
    step("up ends")
    done = run.rest()
    assert done.code != 0, done.text
    # Of what is said, the error's words come last: pip's and Docker's own may be before.
    assert FULL.lower() in done.text.lower(), done.text
    assert "make room there" in done.text, done.text
    assert "Traceback" not in done.text, done.text


@fault("disk full during the download", trials=1)
def test_download(pair, trial):
    head = pair.nodes[0]
    to_come_anew(pair)
    trial.among(pair.nodes)
    with disk(head, CACHE) as cache:
        with slow_hub():
            run = UnderWay(pair, pulumi(pair, "up"))
            wait_for_weights(head, 0.1)
            cache.shrink(f"{trial.chance.randrange(16, 30)}m")
            ends_with_the_reason(run)
        cache.free()
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)


@fault("disk full during the copy of weights", trials=2)
def test_copy(pair, trial):
    head, worker = pair.nodes
    to_come_anew(pair)
    trial.among(pair.nodes)
    with disk(worker, CACHE) as cache:
        with slow_fabric(head, 50):
            run = UnderWay(pair, pulumi(pair, "up"))
            wait_for_weights(worker, 0.1)
            cache.shrink(f"{trial.chance.randrange(16, 30)}m")
            ends_with_the_reason(run)
        cache.free()
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)


@fault("disk full while an image is loaded", trials=2)
def test_image(pair, trial):
    worker = pair.nodes[1]
    trial.among(pair.nodes[:1])
    pair.configure(image={"source": "copy"}, serving={"executor": "mp"})
    with docker_disk(worker, f"{trial.chance.randrange(60, 300)}m") as docker:
        ends_with_the_reason(UnderWay(pair, pulumi(pair, "up")))
        docker.free()
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)
        # What the test itself put there: the next one begins with nothing, too.
        sparks.on(worker, "docker image prune --all --force")


RECORDED = ("cluster-fabric-spark-{0} created", "cluster-image-with-spark-{0} created")


@fault("disk full while records are written", trials=2)
def test_records(pair, trial):
    spark = pair.nodes[trial.number]
    with disk(spark, ".local/state", size="8m") as state:
        trial.among(pair.nodes)
        run = UnderWay(pair, pulumi(pair, "up"))
        run.says(RECORDED[trial.number].format(spark.index))
        state.fill()
        ends_with_the_reason(run)
        state.empty()
        assert sparks.on(spark, "find ~/.local/state -name '*.partial'") == ""
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)


@fault("disk full before the first step: no lease can be taken", trials=1)
def test_lease(pair, trial):
    spark = pair.nodes[trial.number]
    with disk(spark, ".local/state", size="8m") as state:
        trial.among(pair.nodes)
        state.fill()
        ends_with_the_reason(UnderWay(pair, pulumi(pair, "up")))
        state.empty()
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)
