"""What is decided from settings and facts, down to each rank's command line and environment."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from components.facts.hub import File, Model
from components.plan.checks import used_ports
from components.plan.decide import before_model
from components.plan.engines.common import HF_HOME
from components.plan.engines.vllm import NOT_CARRIED
from components.plan.models import pinned_revision, recorded_model, snapshot_directory
from components.plan.steps import new_generation
from components.plan.values import content
from components.ports import RAY_AGENTS
from components.problems import Refused
from components.scripts.shared.upstream import ssh_upstream
from tests.unit.build import FOUR_DOWN, IDENTITY, MODEL, ON_RAY, facts, pair, plan, settings, twins

ROOT = Path(__file__).parent.parent.parent


def refusal(settings_=None, facts_=None, model=MODEL) -> str:
    with pytest.raises(Refused) as caught:
        plan(settings_, facts_, model)
    return str(caught.value)


def early_refusal(settings_, facts_) -> str:
    with pytest.raises(Refused) as caught:
        before_model(settings_, facts_, IDENTITY)
    return str(caught.value)


def on_ray(facts_=None, **config):
    return plan(settings(serving={**ON_RAY, **config.pop("serving", {})}, **config), facts_)


def containers(made):
    return {"server": made.ranks[0], **{c.node: c for c in (made.ray.head, *made.ray.workers)}}


def test_a_gid_index_moved_by_a_reboot_changes_that_rank_alone():
    before = containers(on_ray(pair()))
    moved = twins(2, first=5, second=5)
    after = containers(on_ray(pair(rdma=moved)))
    assert {name for name in before if before[name] != after[name]} == {"spark-2"}
    assert before["spark-2"].environment["NCCL_IB_GID_INDEX"] == "3"
    assert after["spark-2"].environment["NCCL_IB_GID_INDEX"] == "5"


def test_the_server_of_a_pair():
    made = on_ray()
    assert made.ranks[0].command == (
        "vllm",
        "serve",
        f"/root/.cache/huggingface/hub/models--openai--gpt-oss-120b/snapshots/{MODEL.commit}",
        "--served-model-name=openai/gpt-oss-120b",
        "--host=0.0.0.0",
        "--port=8000",
        "--tensor-parallel-size=2",
        "--pipeline-parallel-size=1",
        "--max-model-len=131072",
        "--gpu-memory-utilization=0.85",
        "--enable-expert-parallel",
        "--reasoning-parser=openai_gptoss",
        "--enable-auto-tool-choice",
        "--tool-call-parser=openai",
        "--shutdown-timeout=20",
        "--distributed-executor-backend=ray",
    )
    assert made.ranks[0].environment["RAY_ADDRESS"] == "192.168.177.1:6379"


def test_a_server_may_answer_what_it_has_accepted_where_its_version_is_known_to_have_that_option():
    def drains(image):
        return "--shutdown-timeout=20" in plan(settings(image={"name": image})).ranks[0].command

    known = ("nvcr.io/nvidia/vllm:26.10-py3", "vllm/vllm-openai:v0.18.0")
    assert [drains(image) for image in known] == [True, True]
    others = ("nvcr.io/nvidia/vllm:26.03-py3", "vllm/vllm-openai:v0.17.1", "somebody/vllm:latest", "our/llm:2.1")
    assert [drains(image) for image in others] == [False] * 4


def test_ray_binds_to_the_fabric_and_its_dashboard_to_loopback():
    made = on_ray(ray={"dashboard": True})
    assert "--node-ip-address=192.168.177.1" in made.ray.head.command
    assert {"--include-dashboard=true", "--dashboard-host=127.0.0.1"} < {*made.ray.head.command}
    assert made.ray.workers[0].command[2:4] == ("--address=192.168.177.1:6379", "--node-ip-address=192.168.177.2")


def test_every_rank_has_its_own_address():
    made = containers(on_ray())
    hosts = [made[name].environment["VLLM_HOST_IP"] for name in ("spark-1", "spark-2")]
    assert hosts == ["192.168.177.1", "192.168.177.2"]


def test_no_variable_of_a_rank_is_carried_over_from_the_head():
    made = on_ray()
    listed = set(json.loads(made.ranks[0].files[NOT_CARRIED]))
    own = {"NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_SOCKET_IFNAME", "UCX_NET_DEVICES", "VLLM_HOST_IP"}
    assert own <= listed


def test_nothing_is_fetched_and_no_token_is_known_where_the_model_runs():
    made = on_ray(hfToken="hf_private", apiKey="sk-private")
    for container in containers(made).values():
        assert container.environment["HF_HUB_OFFLINE"] == "1"
        assert "private" not in repr(container)


def test_containers_are_unprivileged_and_labelled():
    for container in containers(on_ray()).values():
        assert not container.privileged
        assert container.rdma
        assert container.labels["dgx-spark.stack"] == "organization/dgx-spark/test"


def test_vllm_without_ray_has_a_rank_on_every_spark():
    made = plan()
    assert made.ray is None
    assert all(step.inputs["add"] == {} for step in made.image.looks.values())
    head, worker = made.ranks
    rendezvous = ("--nnodes=2", "--master-addr=192.168.177.1", "--master-port=29501")
    assert {*rendezvous, "--node-rank=0", "--distributed-executor-backend=mp"} <= set(head.command)
    assert {*rendezvous, "--node-rank=1", "--headless"} <= set(worker.command)
    assert "--headless" not in head.command
    assert [rank.environment["VLLM_HOST_IP"] for rank in made.ranks] == ["192.168.177.1", "192.168.177.2"]


def test_sglang_has_a_rank_on_every_spark_and_no_ray():
    made = plan(settings(engine="sglang"))
    assert made.ray is None
    head, worker = made.ranks
    assert head.command[:3] == ("python3", "-m", "sglang.launch_server")
    assert {
        "--tp-size=2",
        "--nnodes=2",
        "--node-rank=0",
        "--dist-init-addr=192.168.177.1:50000",
        "--port=30000",
    } <= set(head.command)
    assert "--node-rank=1" in worker.command
    assert {"--reasoning-parser=gpt-oss", "--tool-call-parser=gpt-oss"} <= set(head.command)
    assert made.api_base == "http://10.0.0.1:30000/v1"


def test_sglang_announces_each_ranks_address_on_the_fabric_and_not_that_of_its_default_route():
    made = plan(settings(engine="sglang"))
    for rank, address in zip(made.ranks, ("192.168.177.1", "192.168.177.2"), strict=True):
        assert {rank.environment[name] for name in ("SGLANG_HOST_IP", "HOST_IP")} == {address}
    # vLLM would warn of a deprecated variable.
    assert "HOST_IP" not in plan().ranks[0].environment


def test_vllm_beside_ray_claims_less_memory_unless_told_otherwise():
    big = "qwen2.5-14b"
    assert "--gpu-memory-utilization=0.85" in on_ray(model=big).ranks[0].command, "the catalog has 0.9"
    assert "--gpu-memory-utilization=0.9" in plan(settings(model=big)).ranks[0].command
    assert "--gpu-memory-utilization=0.87" in on_ray(model=big, serving={"gpuMemoryUtilization": 0.87}).ranks[0].command
    # The default of newer versions, 0.92, does not start.
    assert "--gpu-memory-utilization=0.9" in plan(settings(model="some/other")).ranks[0].command


SENTENCES = Model("a/b", "c" * 40, (*MODEL.files, File("modules.json", 1, None)), MODEL.config)
RANKS_DOCUMENTS = Model("a/b", "c" * 40, MODEL.files, {"architectures": ["BertForSequenceClassification"]})


@pytest.mark.parametrize(
    ("model", "task", "word"),
    [(SENTENCES, "embed", True), (RANKS_DOCUMENTS, "score", True), (MODEL, "generate", False)],
)
def test_a_pooling_model_is_known_by_its_files_and_served_as_one(model, task, word):
    made = plan(settings(1, model="a/b"), model=model)
    assert made.readiness.task == task
    assert ("--runner=pooling" in made.ranks[0].command) == word


def test_the_catalogs_rerankers_get_what_their_prompt_needs():
    small = replace(MODEL, repo="Qwen/Qwen3-VL-Reranker-2B", files=(File("model.safetensors", 4 * 10**9, "ab"),))
    made = plan(settings(1, model="qwen3-vl-reranker-2b"), model=small)
    words = dict(word.split("=", 1) for word in made.ranks[0].command if word.startswith("--") and "=" in word)
    assert json.loads(words["--hf-overrides"])["architectures"] == ["Qwen3VLForSequenceClassification"]
    assert "<|im_start|>" in made.ranks[0].files[words["--chat-template"]]
    assert made.readiness.task == "score"


def test_a_key_that_sglang_would_take_for_an_option_is_refused_there_alone_and_not_shown():
    assert plan(settings(engine="vllm", apiKey="-hunted"))
    said = early_refusal(settings(engine="sglang", apiKey="-hunted"), pair())
    assert "apiKey: SGLang takes one that begins with - for an option" in said
    assert "hunted" not in said


@pytest.mark.parametrize(
    ("engine", "model", "noun"), [("trtllm", SENTENCES, "embeddings"), ("sglang", RANKS_DOCUMENTS, "ranking")]
)
def test_an_engine_that_has_no_endpoint_for_a_pooling_model_is_refused(engine, model, noun):
    assert f"is for {noun}" in refusal(settings(1, engine=engine, model="a/b"), model=model)
    if engine == "trtllm":
        assert "--is-embedding" in plan(settings(1, engine="sglang", model="a/b"), model=model).ranks[0].command


@pytest.mark.parametrize(
    ("path", "known"),
    [("chat_template.jinja", True), ("additional_chat_templates/rag.jinja", True), ("a.jinja", False)],
)
def test_a_chat_is_due_where_the_model_has_a_template_for_sure(path, known):
    model = Model("a/b", "c" * 40, (*MODEL.files, File(path, 1, None)), MODEL.config)
    assert plan(model=model).readiness.template == known


def test_ranks_without_ray_are_made_anew_together():
    moved = twins(2, first=5, second=5)
    before, after = plan(settings(engine="sglang")), plan(settings(engine="sglang"), pair(rdma=moved))
    own = {**before.ranks[0].environment, "DGX_SPARK_SERVER": after.ranks[0].environment["DGX_SPARK_SERVER"]}
    assert own == after.ranks[0].environment != before.ranks[0].environment
    assert len({rank.environment["DGX_SPARK_SERVER"] for rank in before.ranks}) == 1


def test_a_size_of_shared_memory_is_for_containers_that_can_have_their_own():
    swarm = plan(settings(engine="trtllm", containers={"shmSize": 32768})).swarm
    assert [host.inputs["shm_size"] for host in swarm.hosts] == [32768, 32768]
    assert plan(settings(engine="trtllm")).swarm.hosts[0].inputs["shm_size"] == 16384
    with pytest.raises(Refused, match="Ray's containers and the server's share"):
        before_model(settings(containers={"shmSize": 32768}, serving=ON_RAY), pair(), IDENTITY)


def test_a_part_of_a_container_that_is_not_used_does_not_tell_it_from_those_before_it():
    (rank, _) = plan().ranks
    assert "own_shm" not in content(rank)
    assert content(replace(rank, own_shm=True)) == {**content(rank), "own_shm": True}


def test_ranks_are_led_by_the_first_over_the_fabric():
    made = plan(settings(engine="sglang", serving={"restarts": 1, "stuckAfter": 0}))
    assert [rank.runner[2:] for rank in made.ranks] == [
        (
            f"--rank={rank}",
            "--names=spark-1,spark-2",
            "--address=192.168.177.1:29600",
            "--key=/run/secrets/rank_key",
            "--restarts=1",
            "--health=http://127.0.0.1:30000/health",
            f"--weights={snapshot_directory(HF_HOME, MODEL)}",
            "--compiled=/root/.cache",
            "--drain=20",
            "--",
        )
        for rank in (0, 1)
    ]
    assert "--names=spark-1" in on_ray().ranks[0].runner, "Ray has the other ranks"


@pytest.mark.parametrize(
    ("engine", "port", "key_file"), [("vllm", 8000, ""), ("sglang", 30000, "/run/api-key.yaml"), ("trtllm", None, "")]
)
def test_the_first_rank_asks_an_engine_that_shows_counters(engine, port, key_file):
    first, second = plan(settings(engine=engine, **({"apiKey": "sk-1"} if key_file else {}))).ranks
    asked = [word.removeprefix("--ask=") for word in first.runner if word.startswith("--ask=")]
    assert not any(word.startswith("--ask=") for word in second.runner)
    if port is None:
        assert asked == []
        return
    (question,) = map(json.loads, asked)
    assert question == {
        "base": f"http://127.0.0.1:{port}",
        "path": "/v1/completions",
        "body": {"model": MODEL.repo, "prompt": "Hello", "max_tokens": 1, "temperature": 0},
        "limit": 300,
        "key_file": key_file,
    }
    assert "def until_stuck" in first.files["/opt/dgx-spark/pulse.py"]
    assert "/opt/dgx-spark/pulse.py" not in second.files


def served(number, *, running=True):
    labels = {"dgx-spark.stack": IDENTITY.full, "dgx-spark.component": "server"}
    container = {"id": "1", "name": "dgx-spark-test-server", "running": running, "labels": labels}
    return facts(
        number,
        docker={"runtimes": ["nvidia"], "containers": [container]},
        records={"endpoint": {"spec": "", "generation": "served", "intact": True}},
    )


@pytest.mark.parametrize(("running", "generation"), [(True, "served"), (False, "fresh")])
def test_a_server_with_a_rank_that_was_found_stopped_has_to_prove_itself(running, generation):
    made = plan(settings(engine="sglang"), {"spark-1": served(1), "spark-2": served(2, running=running)})
    assert made.endpoint_generation == generation


def test_one_spark_needs_neither_ray_nor_fabric():
    made = plan(settings(1), {"spark-1": facts(1, ibdev2netdev=FOUR_DOWN)})
    assert (made.ray, made.fabric, made.copy_keys, made.authorizations) == (None, (), (), ())
    assert "--tensor-parallel-size=1" in made.ranks[0].command
    assert not any("executor" in word for word in made.ranks[0].command)
    assert made.ranks[0].environment["NCCL_SOCKET_IFNAME"] == "lo"


def test_three_sparks_use_pipeline_parallel_where_the_heads_cannot_be_divided():
    assert {"--tensor-parallel-size=1", "--pipeline-parallel-size=3"} <= set(plan(settings(3)).ranks[0].command)
    divisible = Model("a/b", "c" * 40, MODEL.files, {"num_attention_heads": 48})
    assert "--tensor-parallel-size=3" in plan(settings(3), model=divisible).ranks[0].command


def test_config_wins_over_the_catalog():
    serving = {
        "maxModelLen": 4096,
        "gpuMemoryUtilization": 0.5,
        "toolCallParser": "hermes",
        "extraArgs": ["--seed=1"],
        "env": {"NCCL_DEBUG": "TRACE", "X": "1"},
    }
    made = on_ray(serving=serving)
    assert {"--max-model-len=4096", "--gpu-memory-utilization=0.5", "--tool-call-parser=hermes"} <= set(
        made.ranks[0].command
    )
    assert "--seed=1" in made.ranks[0].command
    assert {c.environment["NCCL_DEBUG"] for c in containers(made).values()} == {"TRACE"}


def test_images_other_than_nvidias_lose_their_entrypoint():
    assert plan().ranks[0].entrypoint is None
    assert plan(settings(image={"name": "vllm/vllm-openai:v0.12.0"})).ranks[0].entrypoint == ("/usr/bin/env",)


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        ({"tensorParallel": 4}, "tensor parallel 4 × pipeline parallel 1 needs 4 GPUs, and 2 Sparks have 2"),
        ({"tensorParallel": 1, "pipelineParallel": 1}, "needs 1 GPUs, and 2 Sparks have 2"),
        ({"maxModelLen": 200000}, "200000 is more than the 131072 tokens"),
    ],
)
def test_what_vllm_would_refuse_is_refused_at_preview(serving, words):
    assert words in refusal(settings(serving=serving))


def test_heads_that_the_tensor_parallel_degree_does_not_divide():
    odd = Model("a/b", "c" * 40, MODEL.files, {"num_attention_heads": 7})
    assert "7 attention heads, which 2 does not divide" in refusal(settings(serving={"tensorParallel": 2}), model=odd)


def test_a_disk_too_small_for_the_weights():
    cache = {"path": "/raid", "free": 61 * 10**9, "held": {}}
    text = refusal(facts_=pair(cache=cache))
    assert "spark-2: disk too small for the weights: /raid has 61.0 GB free, 70.0 GB needed" in text


def test_a_download_that_was_interrupted_counts_what_is_there():
    cache = {"path": "/raid", "free": 61 * 10**9, "held": {"openai/gpt-oss-120b": {"ab" * 32: 20 * 10**9}}}
    assert plan(facts_=pair(cache=cache)).weights


def test_what_another_commit_left_in_the_cache_is_no_part_of_this_one():
    cache = {"path": "/raid", "free": 10 * 10**9, "held": {"openai/gpt-oss-120b": {"cd" * 32: 65 * 10**9}}}
    assert "/raid has 10.0 GB free, 70.0 GB needed" in refusal(facts_=pair(cache=cache))
    more = {**cache, "held": {"openai/gpt-oss-120b": {"ab" * 32: 70 * 10**9}}}
    assert plan(facts_=pair(cache=more)).weights


CLOSED = {"path": "/x/hub", "owner": "root", "missing": "", "read_only": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"docker": {"problem": "absent"}}, "spark-2: Docker does not run"),
        ({"docker": {"problem": "permission"}}, "spark-2: nvidia may not use Docker"),
        ({"docker": {"runtimes": ["runc"]}}, "spark-2: Docker has no way to the GPU"),
        ({"gpus": []}, "spark-2: nvidia-smi shows no GPU"),
        ({"lease": {"stack": "o/p/other"}}, "spark-2: is held by the stack o/p/other"),
        ({"machine_id": "machine-1"}, "spark-2: is the same machine as spark-1"),
        (
            {"cache": {"path": "/x", "free": 1, "held": {}, "closed": [CLOSED]}},
            "spark-2: nvidia can't write /x/hub (of root)\n    → on it: sudo chown -R nvidia: /x/hub",
        ),
    ],
)
def test_a_spark_that_cannot_serve_is_refused_with_the_remedy(changes, words):
    assert words in early_refusal(settings(), pair(**changes))


def test_a_port_in_use_by_a_stranger():
    before_model(settings(), {"spark-1": facts(1, listening_udp=[8000]), "spark-2": facts(2)}, IDENTITY)
    both = {"spark-1": facts(1, listening=[22, 8000]), "spark-2": facts(2)}
    assert "spark-1: port 8000 is in use by another program" in early_refusal(settings(), both)


def test_our_own_server_on_its_port_is_no_problem():
    ours = {
        "id": "1",
        "name": "dgx-spark-test-server",
        "running": True,
        "labels": {"dgx-spark.stack": IDENTITY.full, "dgx-spark.ports": "8000"},
    }
    docker = {"runtimes": ["nvidia"], "containers": [ours]}
    before_model(settings(), {"spark-1": facts(1, listening=[22, 8000], docker=docker), "spark-2": facts(2)}, IDENTITY)


RAYS = ",".join(map(str, RAY_AGENTS))


def test_nothing_in_ray_waits_for_a_port_that_another_process_of_it_chooses():
    on_ray = plan(settings(serving=ON_RAY)).ray
    for one in (on_ray.head, *on_ray.workers):
        named = {word.partition("=")[0] for word in one.command}
        assert named >= {
            "--runtime-env-agent-port",
            "--dashboard-agent-grpc-port",
            "--dashboard-agent-listen-port",
            "--metrics-export-port",
        }


@pytest.mark.parametrize(
    ("config", "listens"),
    [
        ({"serving": ON_RAY}, {"server": "8000", "ray-head": f"6379,{RAYS}"}),
        ({"serving": ON_RAY, "ray": {"dashboard": True}}, {"server": "8000", "ray-head": f"6379,8265,{RAYS}"}),
        ({"engine": "sglang"}, {"server": "30000,50000,29600"}),
        ({"serving": {"port": 9000}}, {"server": "9000,29501,29600"}),
    ],
)
def test_containers_are_labelled_with_the_ports_that_the_check_asks_for(config, listens):
    chosen = settings(**config)
    made = plan(chosen)
    on_head = [made.ranks[0], *([made.ray.head] if made.ray else [])]
    assert {c.component: c.labels["dgx-spark.ports"] for c in on_head} == listens
    labelled = {int(port) for ports in listens.values() for port in ports.split(",")}
    assert {port for _, port in used_ports(chosen)} == labelled


def test_one_port_for_two_services_is_refused():
    chosen = settings(serving={**ON_RAY, "port": 6379}, ray={"dashboard": True})
    assert "the same port twice: 6379, 6379, 8265" in early_refusal(chosen, pair())


def test_all_that_is_wrong_is_said_at_once():
    text = early_refusal(settings(), pair(gpus=[], docker={"problem": "absent"}, ibdev2netdev=FOUR_DOWN))
    assert text.startswith("3 things need attention")


def record(step, intact=True, **more):
    return {"spec": step.triggers[1], "generation": "recorded", "intact": intact, **more}


def test_an_intact_record_keeps_its_generation_and_a_broken_one_gets_a_fresh_one():
    (_, step) = plan().weights
    kept = plan(facts_=pair(records={"weights": record(step)})).weights[1]
    broken = plan(facts_=pair(records={"weights": record(step, intact=False)})).weights[1]
    assert kept.triggers == ("machine-2", step.triggers[1], "recorded")
    assert broken.triggers == ("machine-2", step.triggers[1], "fresh")


def test_the_same_run_twice_gives_the_same_plan_and_a_repair_gets_a_generation_that_never_was():
    (_, step) = plan().weights
    broken = {"records_changed": "100", "records": {"weights": record(step, intact=False)}}
    first = new_generation(pair(**broken))
    assert first == new_generation(pair(**broken))
    repaired = {"weights": record(step, intact=False) | {"generation": first}}
    again = new_generation(pair(**broken | {"records": repaired}))
    deleted = new_generation(pair(records_changed="200", records={}))
    assert len({first, again, deleted, new_generation(pair(records_changed="100", records={}))}) == 4


def test_another_model_is_another_spec_whatever_the_record_says():
    (_, step) = plan().weights
    other = Model("a/b", "d" * 40, (File("x.safetensors", 1, None),), MODEL.config)
    assert plan(facts_=pair(records={"weights": record(step)}), model=other).weights[1].triggers[2] == "fresh"


def test_a_copy_leaves_by_the_address_that_the_head_lets_in():
    """Link-local twins share one subnet; the kernel would take whichever comes first."""
    made = plan(settings(image={"source": "copy"}))
    steps = [made.weights[1], *made.image.copies]
    assert (
        [step.inputs["source"]["own"] for step in steps]
        == made.authorizations[0].inputs["sources"] * 2
        == ["192.168.177.2"] * 2
    )
    ssh = ssh_upstream(steps[0].inputs["source"], "/key")
    said = subprocess.run([*ssh, "-G", "head"], capture_output=True, text=True, check=True).stdout
    assert "bindaddress 192.168.177.2\n" in said


def test_where_the_weights_come_from_is_no_part_of_what_they_are():
    elsewhere = settings(weights={"endpoint": "http://mirror"}, image={"name": "nvcr.io/nvidia/vllm:26.05-py3"})
    assert [s.triggers for s in plan().weights] == [s.triggers for s in plan(elsewhere).weights]


def test_an_unchanged_stack_stays_at_its_commit_without_asking_the_hub():
    known = {
        "repo": MODEL.repo,
        "revision": None,
        "commit": MODEL.commit,
        "path": "/p",
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in MODEL.files],
    }
    held = {"weights": {"spec": "s", "generation": "g", "intact": True, "model": known}}
    head = facts(1, records=held, model_config_=MODEL.config)
    assert recorded_model(head, MODEL.repo, None) == MODEL
    assert recorded_model(head, "openai/gpt-oss-20b", None) is None
    assert recorded_model(head, MODEL.repo, "v2") is None
    assert pinned_revision(head, MODEL.repo, None) == MODEL.commit
    assert pinned_revision(head, MODEL.repo, "v2") == "v2"


def test_a_chosen_gpu_is_the_only_one_that_its_rank_sees():
    nodes = [{"name": "spark-1", "host": "10.0.0.1", "gpu": "GPU-b"}, {"name": "spark-2", "host": "10.0.0.2"}]
    gpus = [{"name": "NVIDIA RTX PRO 2000", "uuid": "GPU-b", "driver": "580.95.05", "index": 1}]
    made = plan(settings(nodes=nodes), {"spark-1": facts(1, gpus=gpus), "spark-2": facts(2)})
    assert made.environment["spark-1"]["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in made.environment["spark-2"]
