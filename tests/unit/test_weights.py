"""Where a model's files come from, where they go, and when they are read again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace

import pytest

from components.facts.hub import File, Model
from components.facts.spark import parse
from components.plan import orders
from components.plan.decide import before_model
from components.plan.engines.common import HF_HOME
from components.plan.models import present_model, recorded_model, staged_repositories
from components.problems import Refused
from tests.unit.build import IDENTITY, MODEL, decided, facts, pair, plan, settings
from tests.unit.home import STACK, probe, record

WHOLE = b"1234"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Cached:
    """A model of one file, as huggingface_hub keeps it, and the script that places it."""

    def __init__(self, home):
        self.home = home
        self.folder = home.path / "hub" / "models--a--b"
        self.snapshot = self.folder / "snapshots" / ("c" * 40)
        self.blob = self.folder / "blobs" / sha256(WHOLE)
        for path in (self.snapshot, self.blob.parent, self.folder / "refs"):
            path.mkdir(parents=True)
        (self.folder / "refs" / "main").write_text("c" * 40)
        self.blob.write_bytes(WHOLE)
        (self.snapshot / "w.safetensors").symlink_to(f"../../blobs/{self.blob.name}")
        (self.snapshot / "config.json").write_text("{}")

    def run(self, verb, *, kind="weights", stack=STACK, keep=True, **more):
        given = {
            "repo": "a/b",
            "commit": "c" * 40,
            "revision": None,
            "files": [{"path": "w.safetensors", "size": len(WHOLE), "sha256": sha256(WHOLE)}],
            "encodings": [],
            "folder": str(self.folder),
            "path": str(self.snapshot),
        }
        return self.home.run("weights.py", verb, **{**given, **more}, keep=keep, record=record(kind, stack=stack))


@pytest.fixture
def cached(home):
    return Cached(home)


def test_what_was_verified_is_not_read_again(cached):
    assert "1 files verified" in cached.run("apply").stderr
    assert cached.run("apply").stderr.strip() == f"a/b@{'c' * 12}: in place"


def test_what_another_stack_or_a_staging_verified_is_not_read_again(cached):
    cached.run("apply", kind="staged-a-b")
    assert cached.run("apply").stderr.strip() == f"a/b@{'c' * 12}: in place"
    assert "in place" in cached.run("apply", stack="organization/dgx-spark/other").stderr


def test_a_file_that_was_written_to_is_read_again_although_its_size_is_right(cached):
    cached.run("apply", kind="staged-a-b")
    cached.blob.write_bytes(b"1235")
    done = cached.run("apply")
    assert done.returncode != 0
    assert "lacks, or has damaged: w.safetensors; and nothing says where to get it from" in done.stderr


def lease(cached, verb, stack=STACK):
    assert cached.home.lease(verb, stack, cache=str(cached.home.path), takeover=True).returncode == 0


def test_weights_that_need_not_be_kept_go_with_the_last_stack_that_uses_them(cached):
    other = "organization/dgx-spark/other"
    for stack in (STACK, other):
        lease(cached, "apply", stack)
        cached.run("apply", stack=stack)
    cached.run("remove", keep=False)
    assert cached.blob.exists(), "another model may follow, and this one again"
    lease(cached, "remove")
    assert cached.blob.exists(), "the other stack's"
    cached.run("remove", keep=False, stack=other)
    lease(cached, "remove", other)
    assert not cached.folder.exists()


def test_weights_that_are_kept_stay_when_the_spark_is_handed_back(cached):
    lease(cached, "apply")
    cached.run("apply")
    cached.run("remove", keep=True)
    lease(cached, "remove")
    assert cached.blob.exists()


@pytest.mark.parametrize("revision", [None, "main", "c" * 40])
def test_a_model_in_the_cache_is_found_with_the_checksums_of_its_large_files(cached, revision):
    found = probe(cached.home, {"repo": "a/b", "revision": revision})
    assert found["present"] == {
        "commit": "c" * 40,
        "files": [
            {"path": "config.json", "size": 2, "sha256": None},
            {"path": "w.safetensors", "size": 4, "sha256": sha256(WHOLE)},
        ],
        "config": {},
    }
    assert found["cache"]["held"]["a/b"][sha256(WHOLE)] > 0
    assert probe(cached.home, {"repo": "a/other", "revision": None})["present"] is None


def test_what_an_interrupted_download_left_counts_as_there(cached):
    for name, size in (("ab" * 32 + ".0123.incomplete", 8192), ("ab" * 32 + ".kept.incomplete", 65536)):
        (cached.blob.parent / name).write_bytes(b"x" * size)
    held = probe(cached.home, {"repo": "a/b", "revision": None})["cache"]["held"]["a/b"]
    assert held["ab" * 32] >= 65536


def test_a_directory_is_another_model_when_a_file_in_it_changes(cached):
    def commit():
        return probe(cached.home, {"path": str(cached.snapshot)})["present"]["commit"]

    before = commit()
    assert commit() == before
    os.utime(cached.snapshot / "config.json", (1, 1))
    assert commit() != before


def test_a_model_that_is_not_there_is_refused_with_the_way_to_get_it():
    offline = settings(weights={"offline": True})
    with pytest.raises(Refused, match=r"(?s)not in the cache of spark-1.* hf download openai/gpt-oss-120b"):
        present_model(offline, facts(1))
    with pytest.raises(Refused, match=r"spark-1 has no /data/mine/config\.json"):
        present_model(settings(model="/data/mine"), facts(1))


def test_second_copies_in_the_cache_are_no_part_of_the_model():
    there = {
        "commit": "c" * 40,
        "files": [
            {"path": path, "size": 1, "sha256": None}
            for path in ("config.json", "original/x.safetensors", "x.safetensors", "x.bin")
        ],
        "config": {},
    }
    model = present_model(settings(weights={"offline": True}), facts(1, present=there))
    assert model.files == (File("config.json", 1, None), File("x.safetensors", 1, None))


DIRECTORY = Model("/data/mine", "d" * 40, MODEL.files, MODEL.config, "/data/mine")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_directory_is_served_under_its_last_name_from_where_it_is(engine):
    made = plan(settings(engine=engine, model="/data/mine"), model=DIRECTORY)
    assert made.served_name == "mine"
    everywhere = [*made.ranks, *((made.ray.head, *made.ray.workers) if made.ray else ())]
    assert all("/data/mine" in {mount.source for mount in one.mounts} for one in everywhere)
    assert all(step.inputs["path"] == "/data/mine" for step in made.weights)
    head, other = made.weights
    assert "endpoint" not in head.inputs
    assert other.inputs["source"]["model"] == "."
    assert made.authorizations[0].inputs["directory"] == "/data/mine"
    assert plan(settings(model="/data/mine", weights={"keep": False}), model=DIRECTORY).weights[0].inputs["keep"]


OFFLINE = {"offline": True}
VOCABULARIES = {
    f"hub/tiktoken-encodings/{name}.tiktoken": encoding.sha256
    for name, encoding in settings().weights.encodings.items()
}
O200K, CL100K = VOCABULARIES


def with_vocabularies(*numbers, **there):
    """Facts of two Sparks, of which those of these numbers have what gpt-oss needs beside its weights."""
    known = {number: {**VOCABULARIES, **there} for number in numbers}
    return {f"spark-{number}": facts(number, encodings=known.get(number, {})) for number in (1, 2)}


def test_offline_nothing_is_fetched_and_the_others_still_copy():
    head, other = plan(settings(weights=OFFLINE), with_vocabularies(1)).weights
    assert not {"endpoint", "source"} & set(head.inputs)
    assert "source" in other.inputs
    assert head.inputs["offline"]
    # It says nothing of what the files are: they are not placed anew for it.
    assert head.triggers == plan().weights[0].triggers


def test_offline_what_gpt_oss_needs_beside_its_weights_is_refused_with_where_it_goes_and_where_it_is():
    chosen, spark = settings(weights=OFFLINE), "/home/nvidia/.cache/huggingface"
    url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    with pytest.raises(Refused) as refused:
        plan(chosen)
    assert [(one.at, one.wrong.split(", which ")[0]) for one in refused.value.problems] == [
        ("weights.offline", f"spark-1 lacks {spark}/{name}") for name in (CL100K, O200K)
    ]
    assert refused.value.problems[1].fix == f"put the file of {url} there (sha256 {VOCABULARIES[O200K]})"
    with pytest.raises(Refused, match=rf"spark-1 has a damaged {spark}/{O200K}, which openai/gpt-oss-120b needs"):
        plan(chosen, with_vocabularies(1, **{O200K: "0" * 64}))
    assert plan(chosen, model=replace(MODEL, repo="Qwen/Qwen2.5-7B-Instruct"))


def test_beside_a_directory_each_spark_has_its_own_for_none_may_read_anothers():
    named, shared = replace(DIRECTORY, repo="/data/gpt-oss-120b"), {**OFFLINE, "shared": True}
    chosen = {"model": "/data/gpt-oss-120b", "weights": OFFLINE}
    with pytest.raises(Refused, match="spark-2 lacks") as refused:
        plan(settings(**chosen), with_vocabularies(1), named)
    assert "spark-1" not in str(refused.value)
    assert plan(settings(**chosen), with_vocabularies(1, 2), named)
    assert plan(settings(**{**chosen, "weights": shared}), with_vocabularies(1), named)


def test_a_spark_is_asked_for_vocabularies_offline_alone_and_tells_their_checksums(home):
    def asked(**chosen):
        return json.loads(orders.probe(settings(**chosen), STACK)["spark-1"])["input"]["encodings"]

    assert asked() == []
    assert asked(weights=OFFLINE) == [O200K, CL100K]
    path = home.path / O200K
    path.parent.mkdir(parents=True)
    path.write_bytes(WHOLE)
    answer = probe(home, None, asked(weights=OFFLINE))
    assert answer["encodings"] == {O200K: sha256(WHOLE)}
    chosen = settings(1)
    known, _ = parse({"spark-1": {"facts": answer}}, chosen)
    assert known["spark-1"].encodings == {O200K: sha256(WHOLE)}


@pytest.mark.parametrize("offline", [{"offline": True}, {}])
def test_offline_no_vocabulary_is_fetched_that_has_gone_since_the_preview(cached, tmp_path, offline):
    (tmp_path / "site").write_bytes(WHOLE)
    path = cached.home.path / O200K
    wanted = {"path": str(path), "url": f"file://{tmp_path}/site", "sha256": sha256(WHOLE)}
    done = cached.run("apply", encodings=[wanted], **offline)
    assert (done.returncode != 0, path.exists()) == (bool(offline), not offline)
    if offline:
        why = f"{path} is not there, or damaged, and weights.offline fetches nothing: put the file of file://"
        assert why in done.stderr


def test_on_a_shared_filesystem_the_head_alone_places_and_removes():
    made = plan(settings(weights={"shared": True, "keep": False}))
    head, other = made.weights
    assert head.inputs["endpoint"]
    assert not {"endpoint", "source"} & set(other.inputs)
    assert (head.inputs["keep"], other.inputs["keep"]) == (False, True)
    assert (made.copy_keys, made.authorizations) == ((), ())


def test_staged_models_are_placed_like_the_one_that_is_served_and_each_once():
    chosen = settings(weights={"stage": ["gpt-oss-20b", "openai/gpt-oss-20b", "gpt-oss-120b"]})
    assert staged_repositories(chosen) == ("openai/gpt-oss-20b",)
    other = replace(MODEL, repo="openai/gpt-oss-20b")
    (staged,) = decided(chosen, staged=(other,)).staged
    assert [step.kind for step in staged.weights] == ["staged-openai-gpt-oss-20b"] * 2
    assert [step.inputs["record"]["kind"] for step in decided(chosen, staged=(other,)).weights] == ["weights"] * 2


def test_the_disk_must_hold_what_is_staged_too():
    chosen = settings(weights={"stage": ["gpt-oss-20b"]})
    cache = {"path": "/raid", "free": 80 * 10**9, "held": {}}
    with pytest.raises(Refused, match=r"135.0 GB needed .*gpt-oss-120b: 65.0 GB, openai/gpt-oss-20b: 65.0 GB"):
        decided(chosen, pair(cache=cache), staged=(replace(MODEL, repo="openai/gpt-oss-20b"),))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"weights": {"stage": ["/data/mine"]}}, r"weights.stage\[0\]: a directory needs no staging"),
        ({"weights": {"stage": ["gpt-oss-20b"], "offline": True}}, "weights.stage: can't be fetched offline"),
        ({"weights": {"stage": ["gpt-oss-20b"]}, "model": "/data/mine"}, "one directory of another Spark"),
    ],
)
def test_what_can_not_be_staged_is_refused(config, words):
    with pytest.raises(Refused, match=words):
        before_model(settings(**config), pair(), IDENTITY)


def test_each_rank_drops_the_pages_of_the_weights_that_it_will_load():
    for engine in ("sglang", "vllm"):
        rank = plan(settings(1, engine=engine)).ranks[0]
        assert f"--weights={HF_HOME}/hub/models--openai--gpt-oss-120b/snapshots/{MODEL.commit}" in rank.runner


@pytest.mark.parametrize(
    ("gigabytes", "serving", "seconds"),
    [(65, {}, 1800), (230, {}, 3450), (230, {"startupTimeout": 60}, 60)],
)
def test_larger_weights_get_more_time_to_load(gigabytes, serving, seconds):
    model = replace(MODEL, files=(File("w.bin", gigabytes * 10**9, None),))
    chosen = settings(serving={**serving, "checkFit": False})
    assert plan(chosen, model=model).readiness.timeout == seconds


def test_a_record_that_is_taken_away_shows_though_nothing_tells_that_it_was_there(home):
    before = probe(home, None)["records_changed"]
    home.run("copy_key.py", "apply", record=record("copy-key"))
    made = probe(home, None)["records_changed"]
    assert probe(home, None)["records_changed"] == made
    (taken,) = home.path.glob(".local/state/dgx-spark/*/copy-key.json")
    taken.unlink()
    assert len({before, made, probe(home, None)["records_changed"]}) == 3


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_code_that_a_model_brings_is_copied_to_where_a_container_may_write(engine):
    made = plan(settings(engine=engine))
    for one in (*made.ranks, *((made.ray.head, *made.ray.workers) if made.ray else ())):
        modules = one.environment["HF_MODULES_CACHE"]
        assert not any(modules.startswith(mount.target) for mount in one.mounts if mount.read_only)
        assert next(mount for mount in one.mounts if mount.target == one.environment["HF_HOME"]).read_only


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("config.json", "m.gguf"), "has its weights as GGUF alone"),
        (("config.json", "adapter_config.json", "adapter_model.safetensors"), "is an adapter"),
        (("config.json",), "has no weights"),
    ],
)
@pytest.mark.parametrize("chosen", [{"weights": {"offline": True}}, {"model": "/data/mine"}])
def test_what_is_there_and_is_no_weights_that_an_engine_loads_is_refused(chosen, names, why):
    there = {"commit": "c" * 40, "files": [{"path": name, "size": 1, "sha256": None} for name in names], "config": {}}
    with pytest.raises(Refused, match=why):
        present_model(settings(**chosen), facts(1, present=there))


@pytest.mark.parametrize("content", ["[]", "<html>", "{", "\x00"])
def test_a_config_that_is_none_is_a_fact_and_no_crash(cached, content):
    (cached.snapshot / "config.json").write_bytes(content.encode() + b"\xff")
    found = probe(cached.home, {"repo": "a/b", "revision": None})
    assert found["present"]["config"] is None
    with pytest.raises(Refused, match=r"the config\.json of openai/gpt-oss-120b is no JSON object"):
        present_model(settings(weights={"offline": True}), facts(1, present=found["present"]))


def test_what_the_weights_take_in_memory_is_remembered_without_asking_the_hub_again(cached):
    cached.run("apply", loaded=5)
    found = probe(cached.home, None)["records"]["weights"]["model"]
    assert found["loaded"] == 5
    (one,) = [step for step in plan(model=replace(MODEL, loaded=60 * 10**9)).weights if "loaded" in step.inputs]
    assert (one.node, one.inputs["loaded"]) == ("spark-1", 60 * 10**9)
    # It says nothing of what the files are: they are not placed anew for it.
    assert one.triggers == plan(model=MODEL).weights[0].triggers
    held = {"weights": {"spec": "s", "generation": "g", "intact": True, "model": found}}
    assert recorded_model(facts(1, records=held, model_config_={}), "a/b", None).loaded == 5


BRINGS = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
first, second = sys.argv[1:]
for path, content in ((first, b"1234"), (second, b"5678")):
    with open(path + ".incomplete", "wb") as stream:
        stream.write(content)
with open(first + ".incomplete", "rb+") as stream:
    # Whoever opens the file waits until we say that we are done with it: fcntl(2), F_SETLEASE.
    fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    os.rename(first + ".incomplete", first)
    signal.sigwait([signal.SIGIO])
    fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)
os.rename(second + ".incomplete", second)
"""
"""A download that goes on once its first file is read."""


@pytest.mark.parametrize("second", [b"5678", b"8765"], ids=["whole", "damaged"])
def test_what_has_come_is_read_while_the_rest_of_a_download_still_comes(home, second, monkeypatch):
    cached = Cached(home)
    lease(cached, "apply")
    paths = [cached.snapshot / name for name in ("w.safetensors", "x.safetensors")]
    paths[0].unlink()
    docker = home.path / "bin" / "docker"
    docker.parent.mkdir()
    (home.path / "brings.py").write_text(BRINGS)
    files = " ".join(map(str, paths))
    docker.write_text(
        f"#!/bin/sh\n[ $1 = run ] || exit 0\ncat >{home.path}/order\nexec python3 {home.path}/brings.py {files}\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("https_proxy", "http://user:password@proxy:3128")
    contents = dict(zip(paths, (WHOLE, second), strict=True))
    done = cached.run(
        "apply", endpoint="http://hub", image="i", token="", cache=str(home.path),
        files=[{"path": path.name, "size": 4, "sha256": sha256(content)} for path, content in contents.items()],
    )  # fmt: skip
    order = json.loads((home.path / "order").read_text())
    assert order["proxies"]["https_proxy"] == "http://user:password@proxy:3128"
    if second == b"5678":
        assert done.returncode == 0, done.stderr
        assert "2 files verified" in done.stderr
    else:
        assert "a/b: x.safetensors arrived damaged" in done.stderr
        assert [path.exists() for path in paths] == [True, False]
