"""What an engine has compiled is there at its next start, whatever became of its container, and no obstacle."""

from __future__ import annotations

import pytest

from components.scripts.contracts import Prune
from ops import prune
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import says, step

pytestmark = pytest.mark.e2e

COMPILES, LOADS = "torch.compile took 1.00 s in total", "Directly load the compiled graph(s) from the cache"


@pytest.mark.long
def test_an_engine_compiles_once_and_what_is_damaged_is_no_obstacle(alone, third):
    def volumes():
        return sparks.on(third, "docker volume ls -q --filter name=dgx-spark-compiled.openai--gpt-oss-120b").split()

    def log():
        return sparks.on(third, f"docker logs {alone.container('server')} 2>&1")

    for left in volumes():
        sparks.on(third, f"docker volume rm {left}")
    sparks.set_knobs(third, compile_seconds=1.0)

    step("the first start compiles, and is told")
    alone.configure(engine="sglang")
    alone.up()
    (volume,) = volumes()
    assert COMPILES in log()
    assert alone.is_clean()

    step("another container of the same image and model finds it, also after a destroy")
    alone.configure(engine="sglang", serving={"maxModelLen": 4096})
    alone.up()
    assert LOADS in log()
    assert COMPILES not in log()
    alone.destroy()
    assert volumes() == [volume]
    alone.up()
    assert LOADS in log()

    step("what is damaged goes, and the server comes up")
    graphs = "/root/.cache/sglang/graphs"
    sparks.on(third, f"docker exec {alone.container('server')} sh -c 'echo junk > {graphs}'")
    sparks.on(third, f"docker restart {alone.container('server')}")
    says(third, alone.container("server"), COMPILES)
    alone.comes_back()

    step("one that is used stays, and one that is not goes")
    cluster = of(Project(alone.folder, alone.environment), alone.name)
    assert volume not in [row["volume"] for row in prune.unused(cluster, [])["spark-3"]["compiled"]]
    alone.destroy()
    assert volume in [row["volume"] for row in prune.unused(cluster, [])["spark-3"]["compiled"]]
    cluster.ask("prune.py", {"spark-3": Prune(cache=cluster.caches()["spark-3"], remove=[], volumes=[volume])})
    assert volumes() == []
