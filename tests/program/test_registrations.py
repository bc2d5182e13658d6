"""What the program registers: inputs and options of every resource, as Pulumi's engine receives them."""

import json

import pulumi
import pytest

from components.resources.ending import TOLD
from components.resources.engine_image import same_images
from tests.program.record import IMAGE_ID, run
from tests.unit.build import ON_RAY

CONTAINERS = "docker:index/container:Container"
COMMANDS = "command:remote:Command"


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """On Ray, which has more parts."""
    return run(tmp_path, monkeypatch, serving=ON_RAY)


def test_the_graph_of_a_pair(pair):
    assert pair.of_type(CONTAINERS) == ["cluster-ray-head", "cluster-ray-spark-2", "cluster-server-spark-1"]
    assert pair.of_type(COMMANDS) == [
        "cluster-fabric-spark-1",
        "cluster-fabric-spark-2",
        "cluster-image-with-spark-1",
        "cluster-image-with-spark-2",
        "cluster-ray-formed",
        "cluster-room-spark-1",
        "cluster-room-spark-2",
        "cluster-weights-access",
        "cluster-weights-key-spark-2",
        "cluster-weights-spark-1",
        "cluster-weights-spark-2",
        "spark-1-lease",
        "spark-2-lease",
    ]
    assert pair.of_type("docker:index/remoteImage:RemoteImage") == ["cluster-image-spark-1", "cluster-image-spark-2"]


def test_one_spark_has_no_ray_no_fabric_and_no_copies(tmp_path, monkeypatch):
    alone = run(tmp_path, monkeypatch, 1)
    assert alone.of_type(CONTAINERS) == ["cluster-server-spark-1"]
    assert alone.of_type(COMMANDS) == ["cluster-room-spark-1", "cluster-weights-spark-1", "spark-1-lease"]
    assert alone.inputs("cluster-server-spark-1")["image"] == IMAGE_ID


def test_without_ray_a_pair_has_a_server_on_each_spark_and_its_image_as_it_is(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch)
    assert made.of_type(CONTAINERS) == ["cluster-server-spark-1", "cluster-server-spark-2"]
    assert {made.inputs(name)["image"] for name in made.of_type(CONTAINERS)} == {IMAGE_ID}
    assert not any("ray" in name for name in made.requests)


def test_weights_are_in_place_before_a_server_is_touched(pair):
    assert {"cluster-weights-spark-1", "cluster-weights-spark-2"} <= pair.after("cluster-server-spark-1")
    assert "cluster-ray-formed" in pair.after("cluster-server-spark-1")
    # As an input it would make Pulumi stop the server before the new weights are there.
    request = pair.requests["cluster-server-spark-1"]
    fed = {urn.rsplit("::", 1)[1] for urns in request.propertyDependencies.values() for urn in urns.urns}
    assert not any("weights" in name for name in fed)


def test_the_others_copy_from_a_head_that_is_complete(pair):
    assert {"cluster-weights-spark-1", "cluster-weights-access"} <= pair.after("cluster-weights-spark-2")


def test_the_fabric_is_a_gate_for_ray(pair):
    for name in ("cluster-ray-head", "cluster-ray-spark-2"):
        assert {"cluster-fabric-spark-1", "cluster-fabric-spark-2"} <= pair.after(name)


def test_a_server_stands_on_each_ray_container(pair):
    labels = {item["label"]: item["value"] for item in pair.inputs("cluster-server-spark-1")["labels"]}
    assert labels["dgx-spark.stands-on.spark-1"] == "cluster-ray-head-id"
    assert labels["dgx-spark.stands-on.spark-2"] == "cluster-ray-spark-2-id"
    assert pair.inputs("cluster-server-spark-1")["pidMode"] == "container:cluster-ray-head-id"


def test_every_command_removes_before_it_replaces_and_sends_no_variables(pair):
    for name in pair.of_type(COMMANDS):
        request = pair.requests[name]
        assert request.deleteBeforeReplace
        assert pair.inputs(name)["addPreviousOutputInEnv"] is False
        assert "environment" not in pair.inputs(name)


def test_every_container_is_pinned_and_least_privileged(pair):
    for name in pair.of_type(CONTAINERS):
        inputs = pair.inputs(name)
        assert inputs["image"] == "sha256:with-ray"
        assert inputs["networkMode"] == "host"
        assert inputs["privileged"] is False
        assert inputs["devices"][0]["hostPath"] == "/dev/infiniband"
        assert {"name": "memlock", "soft": -1, "hard": -1} in inputs["ulimits"]
        assert inputs["destroyGraceSeconds"] >= 11
        assert "init" in pair.requests[name].replaceOnChanges


def test_shared_memory_is_the_sparks_own_unless_its_size_is_set(tmp_path, monkeypatch):
    usual = run(tmp_path, monkeypatch).inputs("cluster-server-spark-1")
    assert usual["ipcMode"] == "host"
    sized = run(tmp_path, monkeypatch, containers={"shmSize": 32768}).inputs("cluster-server-spark-1")
    # Beside the host's IPC namespace Docker ignores the size.
    assert (sized["ipcMode"], sized["shmSize"]) == ("private", 32768)


def test_every_docker_resource_names_its_sparks_provider(pair):
    for type_ in (CONTAINERS, "docker:index/remoteImage:RemoteImage", "docker:index/volume:Volume"):
        for name in pair.of_type(type_):
            node = "spark-2" if name.endswith("spark-2") else "spark-1"
            assert f"::{node}-docker::" in pair.requests[name].provider


def test_host_keys_are_pinned_for_both_ways_in(pair):
    assert pair.inputs("spark-1-lease")["connection"]["hostKey"].startswith("ssh-ed25519 ")
    options = json.loads(pair.inputs("spark-1-docker")["sshOpts"])
    assert "StrictHostKeyChecking=yes" in options
    assert any(option.startswith("KnownHostsCommand=/bin/echo spark-1 ssh-ed25519") for option in options)


def test_the_fabric_is_measured_when_every_spark_has_confirmed_it(pair):
    assert {"cluster-fabric-spark-1", "cluster-fabric-spark-2"} <= pair.after("cluster-fabric-bandwidth")
    assert "cluster-fabric-bandwidth" in pair.after("cluster-ray-head")


def test_a_staged_model_comes_after_the_one_that_is_served_and_holds_up_no_server(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, weights={"stage": ["gpt-oss-20b"]})
    head, other = (f"cluster-staged-openai-gpt-oss-20b-spark-{n}" for n in (1, 2))
    assert "cluster-weights-spark-2" in made.after(head)
    assert head in made.after(other)
    assert not {head, other} & made.after("cluster-server-spark-1")


def test_a_drafts_weights_come_after_the_models_and_the_server_waits_for_both(tmp_path, monkeypatch):
    draft = {"method": "eagle3", "model": "a/draft"}
    made = run(tmp_path, monkeypatch, serving={"draft": draft}, weights={"stage": ["gpt-oss-20b"]})
    head, other = (f"cluster-draft-spark-{n}" for n in (1, 2))
    assert "cluster-weights-spark-2" in made.after(head)
    assert head in made.after(other)
    assert {head, other} <= made.after("cluster-room-spark-1")
    assert {"cluster-weights-spark-2", head, other} <= made.after("cluster-server-spark-1")
    assert other in made.after("cluster-staged-openai-gpt-oss-20b-spark-1")
    assert "/models--a--draft/snapshots/" in json.dumps(made.inputs("cluster-server-spark-1")["command"])


def test_what_runs_beside_the_server_is_waited_for_by_nobody(tmp_path, monkeypatch):
    keys = {"alice": "sk-of-alice-0123456789"}
    made = run(tmp_path, monkeypatch, monitoring=True, gateway=True, chat=True, gatewayKeys=keys)
    beside = {name for name in made.of_type(CONTAINERS) if "beside" in name}
    assert len(beside) == 8
    assert not beside & made.after("cluster-endpoint-ready")
    for name in beside:
        assert "privileged" not in made.inputs(name)
        assert "sk-of-alice" not in repr(made.raw(name))
    assert "sk-of-alice" in json.dumps(made.inputs("cluster-beside-gateway-spark-1"))


def test_images_survive_a_destroy(pair):
    assert pair.inputs("cluster-image-spark-1")["keepLocally"] is True


def test_secrets_travel_as_secrets_only(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, hfToken="hf_private", apiKey="sk-private")
    holders = [name for name in made.requests if "_private" in json.dumps(made.inputs(name), default=str)]
    assert holders == ["cluster-weights-spark-1"]
    for name in made.requests:
        shown = repr(made.raw(name))
        assert "hf_private" not in shown, name
        assert "sk-private" not in shown, name
        assert "BEGIN OPENSSH" not in shown, name
    command = made.inputs("cluster-server-spark-1")["command"]
    start = command.index("--") + 1
    assert command[start : start + 3] == ["sh", "-c", 'VLLM_API_KEY="$(cat /run/api-key)" exec "$@"']


@pytest.mark.parametrize(
    "layout", [{"engine": "vllm"}, {"engine": "sglang"}, {"engine": "trtllm", "serving": {"launcher": "mpi"}}]
)
def test_ranks_of_several_sparks_have_a_key_in_common_that_docker_inspect_does_not_show(layout, tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, **layout)
    for name in made.of_type(CONTAINERS):
        files = {one["file"]: one["content"] for one in made.inputs(name)["uploads"]}
        key = files["/run/secrets/rank_key"]
        assert key == "ssh-ed25519 AAAA dgx-spark:key\n"
        inspected = {part: made.inputs(name).get(part) for part in ("command", "entrypoints", "envs", "labels")}
        assert "AAAA" not in json.dumps(inspected)
    assert made.requests["cluster-server-key"].additionalSecretOutputs == ["stdout", "connection"]


@pytest.mark.parametrize("engine", [{"engine": "vllm"}, {"engine": "sglang"}, {"engine": "trtllm"}])
def test_a_secret_that_is_a_part_of_a_setting_stays_one_all_the_way(engine, tmp_path, monkeypatch):
    serving = {"env": {"TOKEN": "tok-private"}, "extraArgs": ["--api_token=arg-private"]}
    made = run(tmp_path, monkeypatch, **engine, serving=serving, encrypted=("serving",))
    assert any("arg-private" in json.dumps(made.inputs(name), default=str) for name in made.requests)
    for name in made.requests:
        shown = repr(made.raw(name))
        assert "tok-private" not in shown, name
        assert "arg-private" not in shown, name


def test_what_an_image_is_built_with_can_be_a_secret(tmp_path, monkeypatch):
    image = {"source": "build", "buildArgs": {"PROXY": "http://me:pw-private@proxy"}}
    made = run(tmp_path, monkeypatch, image=image, encrypted=("image",))
    assert "pw-private" in json.dumps(made.inputs("cluster-image-build"))
    assert not [name for name in made.requests if "pw-private" in repr(made.raw(name))]


def test_the_endpoint_proves_itself_again_for_each_new_server(pair):
    assert pair.inputs("cluster-endpoint-ready")["triggers"][0] == "cluster-server-spark-1-id"
    assert pair.requests["cluster-endpoint-ready"].customTimeouts.create == "2100s"


def test_mistakes_end_the_run_before_anything_is_registered(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(pulumi.log, "error", said.append)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, monkeypatch, of_last={"gpus": []})
    assert ended.value.code == TOLD
    assert "spark-2: nvidia-smi shows no GPU" in said[0]


def looked(image, *, base_content="b", ray="2.55.1"):
    """What scripts/image.py answers on a Spark."""
    about = {"image": image, "base": f"base of {image}", "content": "c", "base_content": base_content, "ray": ray}
    return json.dumps(about)


def test_equal_images_are_run_by_each_sparks_own_id():
    # One keeps its images in containerd's store, which gives them other ids.
    answers = {"a": looked("sha256:1"), "b": looked("sha256:2")}
    assert same_images("v", answers) == {"a": "sha256:1", "b": "sha256:2"}
    assert same_images("v", {"a": json.dumps({"image": "sha256:1"})}) == {"a": "sha256:1"}


def test_different_images_under_one_name_are_refused_with_what_helps():
    with pytest.raises(
        pulumi.RunError, match=r"(?s)v is a different image on each Spark:\n  a: base of 1\n  b: .*rm v"
    ):
        same_images("v", {"a": looked("1"), "b": looked("2", base_content="old")})


def test_ray_must_be_the_same_on_every_spark():
    words = r"Ray must be the same on every Spark:\n  a: Ray 2\.55\.1 in 1\n  b: Ray 2\.54\.0 in 2"
    with pytest.raises(pulumi.RunError, match=words):
        same_images("v", {"a": looked("1"), "b": looked("2", ray="2.54.0")})


def test_a_copied_image_is_compared_by_what_it_holds(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, serving={"executor": "ray"}, image={"source": "copy"})
    given = json.loads(made.inputs("cluster-image-copy-spark-2")["stdin"])
    assert (given["image"], given["content"]) == ("sha256:with-ray", "c")


def test_every_spark_of_several_looks_what_its_image_holds(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, engine="sglang")
    looks = [name for name in made.of_type(COMMANDS) if "image-with" in name]
    assert looks == ["cluster-image-with-spark-1", "cluster-image-with-spark-2"]


@pytest.mark.parametrize("config", [{"serving": ON_RAY, "monitoring": True}, {"engine": "trtllm"}])
def test_every_name_that_docker_keeps_is_free_when_its_thing_is_made(config, tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, **config)
    kept = [f"docker:index/{kind}" for kind in ("container:C", "service:S", "secret:S", "serviceConfig:S")]
    named = {name: request for name, request in made.requests.items() if request.type.startswith(tuple(kept))}
    assert named
    for name, request in named.items():
        spark = "spark-2" if name.endswith("spark-2") and "server" not in name else "spark-1"
        # A service is made by the head, whatever Spark it runs on.
        assert list(request.hooks.before_create) == [f"{spark}-clear"], name


def test_volumes_and_what_swarm_keeps_carry_the_stack_and_those_of_former_versions_stay(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, serving=ON_RAY, monitoring=True)
    for name in made.of_type("docker:index/volume:Volume"):
        (label,) = made.inputs(name)["labels"]
        assert (label["label"], label["value"].partition("/")[2]) == ("dgx-spark.stack", "dgx-spark/test")
        assert list(made.requests[name].ignoreChanges) == ["labels"]
