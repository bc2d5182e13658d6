"""What engines compiled is kept per image and model, in the way of nothing, and goes when nobody uses it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.plan.engines import compiled
from components.plan.values import volume_of_image
from components.scripts.shared import compiled as on_spark
from tests.unit.build import MODEL, plan, settings
from tests.unit.home import STACK

COMMIT = "c0ffee00"
GPT = "dgx-spark-compiled.openai--gpt-oss-120b"


def containers(made):
    return (*made.ranks, *((made.ray.head, *made.ray.workers) if made.ray else ()))


def on_ray(container):
    return "--distributed-executor-backend=ray" in container.command or "ray" in container.command[:1]


def at_cache(container):
    return [mount for mount in container.mounts if mount.target == "/root/.cache"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("executor", ["mp", "ray"])
def test_every_container_of_an_engine_keeps_what_it_compiles_below_one_mount(engine, executor):
    for container in containers(plan(settings(engine=engine, serving={"executor": executor}))):
        (mount,) = at_cache(container)
        assert mount.source.startswith("dgx-spark-compiled.ray." if on_ray(container) else f"{GPT}.")
        assert (mount.read_only, mount.of_image) == (False, True)
        elsewhere = {name: value for name, value in container.environment.items() if name in compiled.ELSEWHERE}
        assert len(elsewhere) == 6
        assert all(path.startswith("/root/.cache/") for path in elsewhere.values())


def test_another_image_another_revision_and_another_model_each_start_clean():
    made = plan(), plan(model=replace(MODEL, commit="b" * 40))
    first, second = (at_cache(each.ranks[0])[0].source for each in made)
    assert first != second
    assert volume_of_image("v", "sha256:0123456789abcdef") == "v.0123456789ab"
    names = {volume_of_image(name, image) for name in (first, second) for image in ("sha256:1", "sha256:2")}
    assert len(names) == 4


def test_another_model_leaves_rays_containers_as_they_are():
    chosen = settings(serving={"executor": "ray"})
    made = plan(chosen), plan(chosen, model=replace(MODEL, repo="openai/gpt-oss-20b", commit="b" * 40))
    assert made[0].ray == made[1].ray


def test_it_can_be_turned_off():
    for container in containers(plan(settings(serving={"compileCache": False}))):
        assert at_cache(container) == []
        assert not compiled.ELSEWHERE.keys() & container.environment.keys()
        assert not [word for word in container.runner if word.startswith("--compiled")]


def test_a_users_own_place_wins():
    chosen = settings(serving={"env": {"TRITON_CACHE_DIR": "/mine"}})
    assert plan(chosen).ranks[0].environment["TRITON_CACHE_DIR"] == "/mine"


def test_tensorrt_llm_keeps_its_tuning_where_no_other_rank_could_lack_it():
    several = plan(settings(engine="trtllm")).ranks[0].environment
    assert "TLLM_AUTOTUNER_CACHE_PATH" not in several
    alone = compiled.environment(settings(1, engine="trtllm"))
    assert alone["TLLM_AUTOTUNER_CACHE_PATH"].startswith("/root/.cache/")


def test_a_spark_reads_the_names_that_the_plan_writes():
    (mount,) = at_cache(plan(settings()).ranks[0])
    name = volume_of_image(mount.source, "sha256:0123456789abcdef")
    assert f"{compiled.NAME}." == on_spark.NAME
    assert on_spark.parts(name)[::2] == ("openai--gpt-oss-120b", "0123456789ab")
    assert on_spark.slug("openai/gpt-oss-120b") == on_spark.parts(name)[0]


def volume(name, size=1000):
    return {"Name": name, "UsageData": {"Size": size, "RefCount": 0}}


RUNS, OLD = "0123456789ab", "ba9876543210"
SERVED, STAGED = f"{GPT}.{COMMIT}.{RUNS}", f"dgx-spark-compiled.a--staged.{COMMIT}.{RUNS}"
OF_OLD_IMAGE, OF_NOBODY = f"dgx-spark-compiled.a--staged.{COMMIT}.{OLD}", f"dgx-spark-compiled.no--body.{COMMIT}.{RUNS}"


@pytest.fixture
def spark(host):
    """Serves gpt-oss, has a/staged in place, and volumes of both, of another image and of nobody."""
    names = [SERVED, STAGED, OF_OLD_IMAGE, OF_NOBODY, "dgx-spark-test-ray-session"]
    server = {
        "Id": "f" * 64,
        "ImageID": f"sha256:{RUNS}{'0' * 52}",
        "Labels": {"dgx-spark.stack": STACK},
        "Mounts": [{"Type": "volume", "Name": SERVED, "Destination": "/root/.cache"}],
    }
    host.docker({"/system/df": {"Volumes": [volume(name) for name in names]}, "/containers/json": [server]})
    host.program("docker", f'echo "$@" >> {host.root}/asked')
    folder = host.path / ".local/state/dgx-spark" / STACK.replace("/", ".")
    folder.mkdir(parents=True)
    model = {"path": "/nowhere", "repo": "a/staged", "commit": "1", "files": []}
    (folder / "weights-staged.json").write_text(json.dumps({"spec": "s", "model": model}))
    return host


def prune(host, *names):
    found = host.json("prune.py", cache=str(host.path), remove=[], volumes=list(names))["compiled"]
    return {row["volume"]: row for row in found}


def test_prune_lists_what_was_compiled_with_its_stacks(spark):
    rows = prune(spark)
    assert rows[SERVED] == {"volume": SERVED, "repo": "openai/gpt-oss-120b", "bytes": 1000, "used_by": [STACK]}
    assert {name: row["used_by"] for name, row in rows.items()} == {
        SERVED: [STACK],
        STAGED: [STACK],
        OF_OLD_IMAGE: [],
        OF_NOBODY: [],
    }


def test_prune_removes_what_no_stack_uses_whatever_was_asked(spark):
    prune(spark, SERVED, STAGED, OF_NOBODY, "dgx-spark-test-ray-session")
    assert (spark.root / "asked").read_text().splitlines() == [f"volume rm --force {OF_NOBODY}"]


def test_a_spark_without_docker_prunes_its_weights_all_the_same(host):
    assert prune(host) == {}


def test_what_was_compiled_goes_with_the_weights_that_need_not_be_kept(spark, monkeypatch):
    monkeypatch.setattr(on_spark, "volumes", lambda: dict.fromkeys((SERVED, STAGED, OF_OLD_IMAGE, OF_NOBODY), 0))
    monkeypatch.setenv("PATH", spark.environment()["PATH"])
    on_spark.remove_of("/home/nvidia/.cache/huggingface/hub/models--a--staged")
    assert (spark.root / "asked").read_text().splitlines() == [f"volume rm {STAGED}", f"volume rm {OF_OLD_IMAGE}"]
