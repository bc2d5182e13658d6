"""TensorRT-LLM's ranks, and which engines accept what."""

import json
from dataclasses import replace
from datetime import date

import pytest

from components.plan.decide import before_model
from components.plan.engines import sglang, trtllm
from components.plan.engines.flags import age, refusals, version
from components.problems import Refused
from tests.unit.build import IDENTITY, MODEL, facts, pair, plan, settings, twins
from tests.unit.test_plan import early_refusal

DIRECTORY = "/models/gpt-oss-120b"


def test_one_spark_runs_the_server_itself():
    made = plan(settings(1, engine="trtllm"))
    assert made.ranks[0].command[:4] == ("trtllm-serve", DIRECTORY, "--host=0.0.0.0", "--port=8355")
    assert (made.swarm, made.rank_key, made.image.looks) == (None, None, {})
    assert made.served_name == "gpt-oss-120b"


def test_a_pair_is_launched_by_mpi_from_the_head():
    made = plan(settings(engine="trtllm"))
    first, second = made.ranks
    assert first.command[:7] == (
        "python3",
        "/opt/dgx-spark/mpi.py",
        "run",
        "--hosts=192.168.177.1,192.168.177.2",
        "--port=2233",
        "--",
        "trtllm-llmapi-launch",
    )
    assert {"--tp_size=2", "--pp_size=1", "--backend=pytorch"} <= set(first.command)
    assert second.command[2:] == ("listen", "--address=192.168.177.2", "--port=2233", "--head=192.168.177.1")
    assert {step.inputs["add"]["sshd"] for step in made.image.looks.values()} == {"openssh-server"}


def test_the_model_is_served_under_its_own_name():
    for rank in plan(settings(engine="trtllm")).ranks:
        assert f"--alias={DIRECTORY}" in rank.runner
        (weights,) = (word for word in rank.runner if word.startswith("--weights="))
        # The whole cache is there, to wherever in it the model's links lead.
        (cache,) = (mount for mount in rank.mounts if not mount.is_volume)
        assert cache.read_only
        assert cache.source == "/home/nvidia/.cache/huggingface"
        assert weights.startswith(f"--weights={cache.target}/hub/models--openai--gpt-oss-120b/snapshots/c0ffee")


def test_ranks_with_other_devices_share_mpis_settings_and_keep_their_own():
    other = pair(
        rdma=twins(2, first=5, second=5),
    )
    first, second = (rank.environment for rank in plan(settings(engine="trtllm"), other).ranks)
    assert first["OMPI_MCA_btl_tcp_if_include"] == second["OMPI_MCA_btl_tcp_if_include"] == "192.168.177.0/24"
    assert (first["NCCL_IB_GID_INDEX"], second["NCCL_IB_GID_INDEX"]) == ("3", "5")


def test_options_that_have_no_flag_are_in_the_file():
    made = plan(settings(engine="trtllm", serving={"gpuMemoryUtilization": 0.5}))
    options = json.loads(made.ranks[0].files["/opt/dgx-spark/options.yaml"])
    assert options["kv_cache_config"] == {"dtype": "auto", "free_gpu_memory_fraction": 0.5}


def test_swarm_is_set_up_only_where_it_is_used():
    made = plan(settings(engine="trtllm"))
    assert [step.node for step in made.swarm.hosts] == ["spark-1", "spark-2"]
    assert all(step.root for step in made.swarm.hosts)
    assert made.swarm.hosts[1].inputs["uuid"] == "GPU-2"
    assert made.ranks[0].environment["NVIDIA_MOFED"] == "enabled"
    assert plan(settings(engine="trtllm", serving={"launcher": "mpi"})).swarm is None
    assert plan(settings(engine="sglang")).swarm is None


def test_swarm_needs_sudo_and_says_how_to_do_without():
    text = early_refusal(settings(engine="trtllm"), pair())
    assert "spark-2: Swarm needs Docker's settings changed by root, and sudo asks nvidia for a password" in text
    assert "serving.launcher mpi" in text


def test_containers_of_others_that_a_restart_interrupts_are_named():
    others = {"id": "1", "name": "jupyter", "running": True, "labels": {}}
    known = {"spark-1": facts(1), "spark-2": facts(2, docker={"runtimes": ["nvidia"], "containers": [others]})}
    (told,) = plan(settings(engine="trtllm"), known).warnings
    assert (told.at, told.wrong) == ("spark-2", "Docker will be restarted for Swarm, which interrupts jupyter")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"apiKey": "sk-x"}, "apiKey: trtllm-serve can't ask for a key"),
        ({"serving": {"servedModelName": "x"}}, "serving.servedModelName: trtllm-serve has no such option"),
        ({"serving": {"extraArgs": ['--media_io_kwargs={"a": 1}']}}, "takes words with blanks apart"),
        ({"serving": {"extraArgs": ["--max-beam-width=1"]}}, "--max-beam-width: trtllm-serve writes its options with"),
        ({"serving": {"dataParallel": 2}}, "serving.dataParallel: is for vllm, not trtllm"),
    ],
)
def test_what_trtllm_serve_does_not_have_is_refused(config, words):
    chosen = settings(engine="trtllm", **config)
    if "dataParallel" in words:
        with pytest.raises(Refused, match=words):
            plan(chosen)
    else:
        assert words in early_refusal(chosen, pair(sudo=True))


@pytest.mark.parametrize(
    ("engine", "image", "known"),
    [
        ("vllm", "nvcr.io/nvidia/vllm:26.04-py3", (0, 19)),
        ("vllm", "nvcr.io/nvidia/vllm:26.10-py3", (0, 31)),
        ("vllm", "nvcr.io/nvidia/vllm:26.05.post1-py3", (0, 20)),
        ("vllm", "nvcr.io/nvidia/vllm:29.01-py3", None),
        ("vllm", "vllm/vllm-openai:v0.32.0", (0, 32, 0)),
        ("vllm", "vllm/vllm-openai:latest", None),
        ("sglang", "lmsysorg/sglang:spark", None),
        ("trtllm", "nvcr.io/nvidia/tensorrt-llm/release:1.2.1", (1, 2, 1)),
        ("sglang", f"lmsysorg/sglang:v0.5.21@sha256:{'1' * 64}", (0, 5, 21)),
        ("trtllm", "registry:5000/trt:1.3.0rc5", (1, 3, 0)),
    ],
)
def test_an_images_tag_tells_the_engines_version(engine, image, known):
    assert version(engine, image) == known


@pytest.mark.parametrize(("image", "refused"), [("v/v:v0.32.0", True), ("v/v:v0.12.0", False), ("v/v:latest", False)])
def test_an_option_is_refused_only_by_a_version_known_to_lack_it(image, refused):
    assert bool(list(refusals("vllm", image, ("--swap-space=16",)))) == refused


@pytest.mark.parametrize(
    ("image", "flag", "refused"),
    [
        ("nvcr.io/nvidia/vllm:26.10-py3", "--swap-space=1", True),
        ("nvcr.io/nvidia/vllm:26.10-py3", "--calculate-kv-scales", True),
        ("nvcr.io/nvidia/vllm:26.04-py3", "--calculate-kv-scales", False),
        ("nvcr.io/nvidia/vllm:26.04-py3", "--linear-backend=marlin", True),
        ("nvcr.io/nvidia/vllm:26.10-py3", "--linear-backend=marlin", False),
    ],
)
def test_each_month_of_nvidias_image_has_its_own_options(image, flag, refused):
    assert bool(list(refusals("vllm", image, (flag,)))) == refused


@pytest.mark.parametrize(
    ("month", "warned"),
    [("26.04", ["VLLM_ATTENTION_BACKEND"]), ("26.10", ["VLLM_NVFP4_GEMM_BACKEND", "VLLM_ATTENTION_BACKEND"])],
)
def test_variables_that_vllm_reads_no_more_are_a_warning_with_what_to_write_instead(month, warned):
    env = {"VLLM_ATTENTION_BACKEND": "FLASHINFER", "VLLM_NVFP4_GEMM_BACKEND": "marlin", "VLLM_LOGGING_LEVEL": "DEBUG"}
    chosen = settings(1, serving={"env": env}, image={"name": f"nvcr.io/nvidia/vllm:{month}-py3"})
    found = {one.at: one for one in plan(chosen).warnings}
    assert [name for name in found if name.startswith("serving.env")] == [f"serving.env.{name}" for name in warned]
    assert "--attention-backend" in found["serving.env.VLLM_ATTENTION_BACKEND"].fix
    before_model(chosen, {"spark-1": facts()}, IDENTITY)


@pytest.mark.parametrize(
    ("image", "months"),
    [
        ("nvcr.io/nvidia/vllm:26.10-py3", 1),
        ("nvcr.io/nvidia/vllm:25.11.post1-py3", 12),
        (sglang.IMAGE, 1),
        (trtllm.IMAGE, 7),
        ("vllm/vllm-openai:v0.32.0", None),
        ("nvcr.io/nvidia/vllm:26.13-py3", None),
    ],
)
def test_an_images_name_tells_its_age_where_it_can(image, months):
    assert age(image, date(2026, 11, 26)) == months


def test_copies_of_the_model_on_sparks_of_their_own():
    made = plan(settings(serving={"dataParallel": 2}))
    first, second = (rank.command for rank in made.ranks)
    assert {"--tensor-parallel-size=1", "--data-parallel-size=2", "--data-parallel-size-local=1"} <= set(first)
    assert {"--headless", "--data-parallel-start-rank=1", "--data-parallel-address=192.168.177.1"} <= set(second)
    on_ray = plan(settings(serving={"executor": "ray", "dataParallel": 2})).ranks[0].command
    assert {"--data-parallel-backend=ray", "--tensor-parallel-size=1"} <= set(on_ray)


def test_vocabularies_are_placed_where_a_model_needs_them():
    made = plan(settings())
    assert [e["path"].rsplit("/", 1)[1] for e in made.weights[1].inputs["encodings"]] == [
        "cl100k_base.tiktoken",
        "o200k_base.tiktoken",
    ]
    base = made.ranks[0].environment["TIKTOKEN_ENCODINGS_BASE"]
    assert base == "/root/.cache/huggingface/hub/tiktoken-encodings"
    assert made.weights[0].inputs["encodings"][0]["path"].startswith("/home/nvidia/.cache/huggingface/hub/tiktoken-enc")
    other = replace(MODEL, repo="Qwen/Qwen2.5-7B-Instruct")
    assert plan(model=other).weights[0].inputs["encodings"] == []
    assert "TIKTOKEN_ENCODINGS_BASE" not in plan(model=other).ranks[0].environment
