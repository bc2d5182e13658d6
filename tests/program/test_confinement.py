"""What containers and services may do on a Spark: every registration of every engine, with all that can run beside."""

import pytest

from tests.program.record import run

CONTAINERS = "docker:index/container:Container"
SERVICES = "docker:index/service:Service"

ENGINES = {
    "vLLM": {"engine": "vllm"},
    "vLLM on Ray": {"engine": "vllm", "serving": {"executor": "ray"}},
    "SGLang": {"engine": "sglang"},
    "TensorRT-LLM by MPI": {"engine": "trtllm", "serving": {"launcher": "mpi"}},
    "TensorRT-LLM on Swarm": {"engine": "trtllm"},
}
BESIDE = {"monitoring": True, "gateway": True, "chat": True, "gatewayKeys": {"alice": "sk-of-alice-0123456789"}}

COMMON = ["CAP_DAC_OVERRIDE", "CAP_IPC_LOCK"]
WITH_SSHD = ["CAP_AUDIT_WRITE", *COMMON, "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"]
CAPABILITIES = {"TensorRT-LLM by MPI": WITH_SSHD, "TensorRT-LLM on Swarm": WITH_SSHD}


@pytest.fixture(params=ENGINES)
def made(request, tmp_path, monkeypatch):
    registered = run(tmp_path, monkeypatch, **ENGINES[request.param], **BESIDE)
    registered.capabilities = CAPABILITIES.get(request.param, COMMON)
    return registered


def ranks(made):
    return [made.inputs(name) for name in made.of_type(CONTAINERS) if "beside" not in name]


def tasks(made):
    return [made.inputs(name)["taskSpec"]["containerSpec"] for name in made.of_type(SERVICES)]


def beside(made):
    return [made.inputs(name) for name in made.of_type(CONTAINERS) if "beside" in name]


def test_an_engine_has_the_capabilities_that_it_needs_and_no_other(made):
    assert ranks(made) or tasks(made)
    for container in ranks(made):
        assert container["capabilities"] == {"adds": made.capabilities, "drops": ["ALL"]}
        assert container["privileged"] is False
        assert "no-new-privileges=true" in container["securityOpts"]
    for task in tasks(made):
        assert (task["capAdds"], task["capDrops"]) == (made.capabilities, ["ALL"])


def test_what_runs_beside_has_none_at_all(made):
    assert len(beside(made)) == 8
    for container in beside(made):
        assert container["capabilities"] == {"drops": ["ALL"]}
        assert container["securityOpts"] == ["no-new-privileges=true"]
        assert "privileged" not in container


def test_docker_keeps_its_own_filter_of_system_calls(made):
    for container in [*ranks(made), *beside(made)]:
        assert not [option for option in container["securityOpts"] if option.startswith(("seccomp", "apparmor"))]


def test_nothing_of_a_spark_is_mounted_for_writing_and_dockers_socket_never(made):
    writable = {"/tmp/ray", "/root/.cache", "/prometheus", "/app/backend/data"}
    for container in [*ranks(made), *beside(made)]:
        for volume in container.get("volumes", []):
            source = volume.get("hostPath", "")
            assert "docker.sock" not in source
            assert source not in ("/var/run", "/run", "/var/lib/docker")
            assert volume["readOnly"] if source else volume["containerPath"] in writable, volume
        assert [device["hostPath"] for device in container.get("devices", [])] in ([], ["/dev/infiniband"])
    for task in tasks(made):
        assert all(mount["readOnly"] for mount in task["mounts"] if mount["type"] == "bind")
        assert {mount["target"] for mount in task["mounts"] if mount["type"] == "volume"} <= writable


def test_privileged_containers_are_the_users_own_choice_and_are_nothing_else(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, containers={"privileged": True})
    for container in ranks(made):
        assert container["privileged"] is True
        assert not {"capabilities", "securityOpts"} & container.keys()


def test_a_low_port_and_a_profiler_are_given_what_they_need(tmp_path, monkeypatch):
    config = {"serving": {"port": 443}, "containers": {"capabilities": ["CAP_SYS_PTRACE"]}}
    for container in ranks(run(tmp_path, monkeypatch, **config)):
        assert container["capabilities"]["adds"] == [*COMMON, "CAP_NET_BIND_SERVICE", "CAP_SYS_PTRACE"]
