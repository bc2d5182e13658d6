"""Two stacks for the same Spark: who holds it, and taking it over both ways."""

from __future__ import annotations

import pytest

from simulator import sparks
from tests.e2e.conftest import SOME_IMAGE, Stack, left_behind, step

pytestmark = pytest.mark.e2e


def running(spark):
    return sparks.on(spark, "docker ps --format '{{.Names}}'").split()


@pytest.mark.long
def test_a_spark_is_taken_over_both_ways(alone, third, tmp_path_factory):
    before = left_behind(third)
    other = Stack(tmp_path_factory.mktemp("other"), "other", [third], engine="sglang", model="gpt-oss-20b")
    sparks.on(third, f"docker run -d --name stranger {SOME_IMAGE} sleep 100000")
    try:
        alone.up()
        assert "spark-3: is held by the stack organization/dgx-spark/alone" in other.refusal()
        assert "pulumi config set takeover true" in other.refusal()

        step("the other stack takes over")
        other("config", "set", "takeover", "true", "--stack", other.name)
        shown = other("preview", "--stack", other.name).text
        assert "spark-3: will be taken over from the stack organization/dgx-spark/alone" in shown
        assert alone.complete()["choices"], "a preview stops nothing"
        text = other.up().text
        assert text.index("cluster-weights-spark-3 created") < text.index("removing dgx-spark-alone-server")
        assert text.index("removing dgx-spark-alone-server") < text.index("cluster-server-spark-3 created")
        assert other.complete()["choices"]
        assert sorted(running(third)) == ["dgx-spark-other-server", "stranger"]

        step("and the first one takes it back")
        assert "spark-3: is held by the stack organization/dgx-spark/other" in alone.refusal()
        alone("config", "set", "takeover", "true", "--stack", alone.name)
        changed = alone.preview()
        assert changed["cluster-server-spark-3"] == "create"
        assert changed["cluster-room-spark-3"] == "replace"
        assert "cluster-weights-spark-3" not in changed
        alone.up()
        assert alone.complete()["choices"]
        assert sorted(running(third)) == ["dgx-spark-alone-server", "stranger"]
        assert alone.is_clean()
    finally:
        other.destroy()
        alone.destroy()
        sparks.on(third, "docker rm -f stranger")

    step("nothing is left behind")
    assert left_behind(third) == before
