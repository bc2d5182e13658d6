"""Who waits for whom: for the making and, backwards, for the taking away."""

import pytest

from tests.program.record import run

LAYOUTS = {
    "one Spark": (1, {"engine": "vllm"}),
    "vLLM on Ray": (2, {"engine": "vllm", "serving": {"executor": "ray"}}),
    "vLLM without Ray": (2, {"engine": "vllm", "serving": {"executor": "mp"}}),
    "SGLang": (2, {"engine": "sglang"}),
    "TensorRT-LLM on Swarm": (2, {"engine": "trtllm"}),
    "TensorRT-LLM by MPI": (2, {"engine": "trtllm", "serving": {"launcher": "mpi"}}),
    "image copied": (2, {"engine": "sglang", "image": {"source": "copy"}}),
    "all beside": (2, {"engine": "sglang", "monitoring": True, "chat": True}),
    "staged": (2, {"engine": "sglang", "weights": {"stage": ["gpt-oss-20b"]}}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_put_on_a_spark_before_it_is_taken_nor_left_there_when_it_is_handed_back(
    layout, tmp_path, monkeypatch
):
    count, config = LAYOUTS[layout]
    made = run(tmp_path, monkeypatch, count, **config)
    leases = {f"spark-{n}-lease" for n in range(1, count + 1)}
    for name in made.order("docker:", "command:").keys() - leases:
        assert leases <= made.before(name), name


def test_the_order_of_a_pair_on_ray(tmp_path, monkeypatch):
    both_with_ray = {"cluster-image-with-spark-1", "cluster-image-with-spark-2"}
    leases = {"spark-1-lease", "spark-2-lease"}
    made = run(tmp_path, monkeypatch, serving={"executor": "ray"})
    assert made.order("docker:", "command:") == {
        "spark-1-lease": set(),
        "spark-2-lease": set(),
        "cluster-fabric-spark-1": leases,
        "cluster-fabric-spark-2": leases,
        "cluster-fabric-bandwidth": {"cluster-fabric-spark-1", "cluster-fabric-spark-2"},
        "cluster-image-spark-1": {"cluster-fabric-bandwidth"},
        "cluster-image-spark-2": {"cluster-fabric-bandwidth"},
        "cluster-image-with-spark-1": {"cluster-image-spark-1"},
        "cluster-image-with-spark-2": {"cluster-image-spark-2"},
        "cluster-weights-key-spark-2": leases,
        "cluster-weights-access": {"cluster-weights-key-spark-2"},
        "cluster-weights-spark-1": both_with_ray,
        "cluster-weights-spark-2": {"cluster-weights-spark-1", "cluster-weights-access"},
        "cluster-room-spark-1": {"cluster-weights-spark-2"},
        "cluster-room-spark-2": {"cluster-weights-spark-2"},
        "cluster-ray-session": both_with_ray,
        "cluster-ray-head": {"cluster-ray-session"},
        "cluster-ray-spark-2": both_with_ray,
        "cluster-ray-formed": {"cluster-ray-head", "cluster-ray-spark-2"},
        "cluster-server-spark-1": {"cluster-ray-formed", "cluster-room-spark-1", "cluster-room-spark-2"},
        "cluster-endpoint-ready": {"cluster-server-spark-1"},
    }


def test_a_copied_image_goes_over_the_measured_fabric_and_every_engine_comes_after_the_copies(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, engine="sglang", image={"source": "copy"})
    order = made.order("docker:", "command:")
    assert order["cluster-image-key-spark-2"] == {"spark-1-lease", "spark-2-lease"}
    assert order["cluster-image-access"] == {"cluster-image-key-spark-2", "cluster-image-with-spark-1"}
    assert order["cluster-image-copy-spark-2"] == {"cluster-image-access"}
    for rank in ("cluster-server-spark-1", "cluster-server-spark-2"):
        assert "cluster-image-copy-spark-2" in made.before(rank)


def test_swarm_restarts_docker_only_when_weights_are_in_place_and_room_is_made(tmp_path, monkeypatch):
    order = run(tmp_path, monkeypatch, engine="trtllm").order("docker:", "command:")
    rooms = {"cluster-room-spark-1", "cluster-room-spark-2"}
    assert order["cluster-swarm-host-spark-1"] == order["cluster-swarm-host-spark-2"] == rooms
    assert order["cluster-swarm-manager"] == {"cluster-swarm-host-spark-1", "cluster-swarm-host-spark-2"}
    assert order["cluster-swarm-spark-2"] == {"cluster-swarm-manager"}
    assert order["cluster-swarm-members"] == {"cluster-swarm-spark-2"}
