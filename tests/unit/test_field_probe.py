"""The probe on Sparks as they are found in the field, run on this machine with a Spark's outside in a directory."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from components.facts.spark import NodeFacts, parse
from components.facts.usable import unusable
from tests.examples import some
from tests.unit.build import facts, mapped, settings
from tests.unit.home import STACK

IMAGE = "nvcr.io/nvidia/vllm:26.10-py3"
GPU = "NVIDIA GB10, GPU-8f0b9c2e-6a52-4c1f-9f8e-2d1f3f0a7b11, 580.95.05"
SECOND = "NVIDIA RTX PRO 2000, GPU-11111111-6a52-4c1f-9f8e-2d1f3f0a7b11, 580.95.05"
REPO = "openai/gpt-oss-120b"

NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"


@pytest.fixture
def spark(host):
    """A Spark that lacks nothing."""
    host.prints("nvidia-smi", GPU)
    host.prints("ip", "[]")
    host.docker({"/info": {"ServerVersion": "28.0.0", "Runtimes": {"runc": {}, "nvidia": {}}, "Driver": "overlay2"}})
    return host


def probed(spark, gpu: str | None = None, **more: Any) -> NodeFacts:
    wanted = {
        "stack": STACK,
        "cache": "~/hf",
        "repos": [REPO],
        "look": None,
        "draft": None,
        "encodings": [],
        "images": [IMAGE],
        "sudo": False,
    }
    answer = spark.json("probe.py", **{**wanted, **more})
    node = {"name": "spark-1", "host": "10.0.0.1", **({"gpu": gpu} if gpu else {})}
    found, problems = parse({"spark-1": {"facts": answer}}, settings(1, nodes=[node]))
    assert problems == []
    return found["spark-1"]


def refused(known: NodeFacts) -> list[tuple[str, str]]:
    made = settings(1)
    return [(one.wrong, one.fix) for one in unusable(made.head, known, made)]


def test_a_spark_that_lacks_nothing_is_usable(spark):
    known = probed(spark)
    assert [(gpu.name, gpu.driver) for gpu in known.gpus] == [("NVIDIA GB10", "580.95.05")]
    assert refused(known) == []


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (NO_DRIVER, 9, NO_DRIVER.strip()),
        (MISMATCH, 18, "Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.95"),
        ("No devices were found\n", 0, "No devices were found"),
        ("", 0, "nothing"),
    ],
)
def test_an_nvidia_smi_that_fails_in_words_shows_no_gpu_and_its_words(spark, output, code, words):
    spark.prints("nvidia-smi", output, code)
    known = probed(spark)
    assert known.gpus == ()
    ((wrong, fix),) = refused(known)
    assert wrong == f"nvidia-smi shows no GPU, but: {words}"
    assert "reboot" in fix


def test_a_warning_of_nvidia_smi_beside_the_gpu_is_no_gpu(spark):
    spark.prints("nvidia-smi", f"{GPU}\nWARNING: infoROM is corrupted at gpu 0000000F:01:00.0")
    assert len(probed(spark).gpus) == 1


def test_without_nvidia_smi_the_driver_is_missing(spark):
    (spark.programs / "nvidia-smi").unlink()
    spark.shadow("nvidia-smi")
    assert refused(probed(spark))[0][0] == "nvidia-smi shows no GPU, but: there is no program nvidia-smi"


def test_of_two_gpus_one_is_supported_and_named(spark):
    spark.prints("nvidia-smi", f"{GPU}\n{SECOND}")
    ((wrong, fix),) = refused(probed(spark))
    assert wrong.startswith("has 2 GPUs (NVIDIA GB10 GPU-8f0b9c2e")
    assert "one per Spark is supported" in wrong
    assert fix == "name it: pulumi config set --path 'nodes[0].gpu' GPU-8f0b9c2e-6a52-4c1f-9f8e-2d1f3f0a7b11"
    chosen = probed(spark, gpu=SECOND.split(", ")[1])
    assert [(gpu.name, gpu.index) for gpu in chosen.gpus] == [("NVIDIA RTX PRO 2000", 1)]
    assert refused(chosen) == []


def test_a_gpu_that_was_named_and_is_not_there_is_said(spark):
    ((wrong, _),) = refused(probed(spark, gpu="GPU-0"))
    assert wrong == "nvidia-smi shows no GPU, but: GPU-8f0b9c2e-6a52-4c1f-9f8e-2d1f3f0a7b11 and not nodes[].gpu GPU-0"


# How a container gets the GPU


def gpu_by(spark, version: str = "28.0.0", devices: tuple[str, ...] = (), tools: tuple[str, ...] = ()) -> list[str]:
    spark.close()
    (spark.root / "var/run/docker.sock").unlink()
    info = {"ServerVersion": version, "Runtimes": {"runc": {}}}
    spark.docker({"/info": {**info, "DiscoveredDevices": [{"Source": "cdi", "ID": device} for device in devices]}})
    spark.shadow("nvidia-container-runtime-hook", "nvidia-cdi-hook")
    for tool in tools:
        spark.program(tool, "exit 0")
    return [wrong for wrong, _ in refused(probed(spark))]


ALL = ("nvidia.com/gpu=0", "nvidia.com/gpu=all")


def test_without_the_runtime_the_hook_is_enough(spark):
    assert gpu_by(spark, tools=("nvidia-container-runtime-hook",)) == []


def test_from_docker_29_2_on_cdi_is_enough(spark):
    assert gpu_by(spark, "29.2.0", ALL, ("nvidia-cdi-hook",)) == []
    assert gpu_by(spark, "30.0.1", ALL, ("nvidia-cdi-hook",)) == []


def test_an_older_docker_has_the_gpu_by_cdi_alone_out_of_reach(spark):
    assert gpu_by(spark, "28.5.2", ALL, ("nvidia-cdi-hook",)) == [
        "Docker 28.5.2 knows the GPU by CDI alone (nvidia.com/gpu=all), which `--gpus` uses from 29.2 on"
    ]


def test_without_anything_no_container_would_see_the_gpu(spark):
    assert gpu_by(spark) == ["Docker has no way to the GPU: no runtime `nvidia`, no hook and no CDI device"]


CDI = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  mounts:
  - containerPath: /usr/lib/aarch64-linux-gnu/libcuda.so.580.82.09
    hostPath: {library}
    options: [ro, nosuid]
"""


def test_a_cdi_spec_names_what_is_gone_since_the_driver_was_updated(spark):
    spark.put("etc/cdi/nvidia.yaml", CDI.format(library="/usr/lib/aarch64-linux-gnu/libcuda.so.580.82.09"))
    there = spark.put("there", "")
    spark.put("var/run/cdi/nvidia.json", json.dumps({"kind": "nvidia.com/gpu", "mounts": [{"hostPath": str(there)}]}))
    spark.put("etc/cdi/other.yaml", "kind: example.com/device\nhostPath: /gone\n")
    found = {os.path.basename(spec.path): spec.missing for spec in probed(spark).cdi}
    assert found == {"nvidia.yaml": ("/usr/lib/aarch64-linux-gnu/libcuda.so.580.82.09",), "nvidia.json": ()}


# Docker's own lists


def test_containers_without_a_name_or_with_null_labels_are_no_trouble(spark):
    spark.daemon.answers["/containers/json?all=1"] = [
        {"Id": "a" * 64, "Names": None, "State": "removing", "Labels": None},
        {"Id": "b" * 64, "Names": [], "State": "running", "Labels": {"dgx-spark.stack": "s"}},
        {"Id": "c" * 64, "Names": ["/web"], "State": "running", "Labels": {}},
    ]
    found = probed(spark).docker.containers
    assert [(one.name, one.labels) for one in found] == [
        ("a" * 12, {}),
        ("b" * 12, {"dgx-spark.stack": "s"}),
        ("web", {}),
    ]


def image(id_: str, **more: Any) -> dict[str, Any]:
    config = {"Env": ["PATH=/usr/bin"], "Cmd": ["bash"], "Entrypoint": None, "WorkingDir": "", "User": ""}
    layers = ["sha256:" + "1" * 64, "sha256:" + "2" * 64]
    return {
        "Id": id_,
        "RepoDigests": [],
        "RootFS": {"Layers": layers},
        "Config": config,
        "Architecture": "arm64",
        **more,
    }


def content(spark, about: dict[str, Any]) -> Any:
    spark.daemon.answers["/images/json"] = [{"Id": about["Id"], "RepoTags": [IMAGE]}]
    spark.daemon.answers[f"/images/{IMAGE}/json"] = about
    return probed(spark).docker.contents[IMAGE]


def test_one_image_in_two_stores_has_two_ids_and_one_content(spark):
    overlay2 = content(spark, image("sha256:" + "c" * 64))
    # The containerd store says the manifest's digest, and omits what is empty.
    sparse = {"Env": ["PATH=/usr/bin"], "Cmd": ["bash"]}
    containerd = content(spark, image("sha256:" + "d" * 64, RepoDigests=[f"x@sha256:{'d' * 64}"], Config=sparse))
    assert overlay2.id != containerd.id
    assert overlay2.content == containerd.content
    other = content(spark, image("sha256:" + "e" * 64, RootFS={"Layers": ["sha256:" + "3" * 64]}))
    assert other.content != overlay2.content


# The cache


def modes(spark, *paths: str) -> None:
    """Directories that can't be written; root, as whom tests may run, is held back by an immutable stand-in."""
    for path in paths:
        (spark.path / path).mkdir(parents=True, exist_ok=True)
    # os.access asks the kernel, to which root may do everything: the script is told instead.
    names = [str(spark.path / path) for path in paths]
    spark.before = (
        f"import os\nhis = os.access\nos.access = lambda path, mode: path not in {names!r} and his(path, mode)\n"
    )


def test_a_hub_that_belongs_to_root_is_found_below_a_cache_that_does_not(spark):
    modes(spark, "hf/hub")
    ((wrong, fix),) = refused(probed(spark))
    hub = spark.path / "hf/hub"
    owner = hub.owner()
    assert wrong == f"nvidia can't write {hub} (of {owner})"
    assert fix == f"on it: sudo chown -R nvidia: {shlex.quote(str(hub))}"


@pytest.mark.parametrize(
    "path", ["hf/hub/.locks", "hf/hub/models--openai--gpt-oss-120b", "hf/hub/blobs",
             "hf/hub/models--openai--gpt-oss-120b/blobs", "hf/hub/.locks/models--openai--gpt-oss-120b",
             "hf/hub/models--openai--gpt-oss-120b/snapshots/abc/original"]
)  # fmt: skip
def test_every_folder_that_a_download_writes_is_tried(spark, path):
    modes(spark, path)
    assert refused(probed(spark))[0][0].startswith(f"nvidia can't write {spark.path / path} ")


def test_another_models_folder_is_nobodys_concern(spark):
    modes(spark, "hf/hub/models--some--other")
    assert refused(probed(spark)) == []


def test_several_folders_are_mended_by_one_command(spark):
    modes(spark, "hf/hub/.locks", "hf/hub/models--openai--gpt-oss-120b")
    ((_, fix),) = refused(probed(spark))
    locks, model = (spark.path / path for path in ("hf/hub/.locks", "hf/hub/models--openai--gpt-oss-120b"))
    assert fix == f"on it: sudo chown -R nvidia: {locks} {model}"


def test_a_cache_that_is_not_there_yet_is_made_and_its_parent_left_alone(spark):
    modes(spark, "raid")
    ((wrong, fix),) = refused(probed(spark, cache=str(spark.path / "raid/models/hf")))
    assert wrong == f"nvidia can't make {spark.path}/raid/models/hf: {spark.path}/raid is of {spark.path.owner()}"
    assert fix == f"on it: sudo install -d -o nvidia {spark.path}/raid/models/hf"


def test_a_file_system_that_is_read_only_is_no_matter_of_owners():
    closed = [{"path": "/raid/hf", "owner": "nvidia", "missing": "", "read_only": True}]
    known = facts(cache={"path": "/raid/hf", "free": 10**12, "held": {}, "closed": closed})
    ((wrong, fix),) = refused(known)
    assert wrong == "/raid/hf is on a file system that is mounted read-only"
    assert "weights.cache" in fix


def test_a_folder_of_ones_own_that_is_locked_is_opened():
    closed = [{"path": "/raid/hf", "owner": "nvidia", "missing": "", "read_only": False}]
    known = facts(cache={"path": "/raid/hf", "free": 10**12, "held": {}, "closed": closed})
    assert refused(known)[0][1] == "on it: chmod -R u+rwX /raid/hf"


# The network


def test_bonds_and_vlans_are_seen_as_iproute2_shows_them(spark):
    links = [
        {"ifname": "enp1s0f1np1", "mtu": 9000, "master": "bond0", "linkinfo": {"info_slave_kind": "bond"}},
        {"ifname": "enp1s0f0np0", "mtu": 1500, "master": "br0", "linkinfo": {"info_slave_kind": "bridge"}},
        {"ifname": "bond0", "mtu": 9000, "linkinfo": {"info_kind": "bond"}},
        {"ifname": "bond0.100", "link": "bond0", "mtu": 9000, "linkinfo": {"info_kind": "vlan"}},
        {"ifname": "veth1", "link": "eth0", "mtu": 1500, "linkinfo": {"info_kind": "veth"}},
    ]
    v4 = [{}, {"ifname": "bond0.100", "addr_info": [{"local": "192.168.177.1", "prefixlen": 24}]}]
    spark.program("ip", f"case \"$*\" in *-4*) echo '{json.dumps(v4)}';; *) echo '{json.dumps(links)}';; esac")
    found = {link.name: (link.master, link.parent, link.addresses) for link in probed(spark).links}
    assert found == {
        "enp1s0f1np1": ("bond0", None, ()),
        "enp1s0f0np0": (None, None, ()),
        "bond0": (None, None, ()),
        "bond0.100": (None, "bond0", ("192.168.177.1/24",)),
        "veth1": (None, None, ()),
    }


def test_gids_and_netdevs_are_read_from_sysfs(spark):
    spark.infiniband(
        "rocep1s0f1", "enp1s0f1np1", {5: (mapped("192.168.177.1"), "RoCE v2"), 6: ("0000:" * 7 + "0000", "")}
    )
    (device,) = probed(spark).rdma
    assert (device.name, device.netdev, device.state) == ("rocep1s0f1", "enp1s0f1np1", "4: ACTIVE")
    assert [(gid.index, gid.type) for gid in device.gids] == [(5, "RoCE v2")]


# The host


def test_the_kernels_reserve_and_perftest_are_facts(spark):
    spark.put("proc/meminfo", "MemTotal: 125516800 kB\nMemAvailable: 1 kB\nCmaTotal: 0 kB\nCmaFree: 940604 kB\n")
    spark.shadow("ib_write_bw", "ib_write_lat")
    spark.program("ib_write_bw", "exit 0")
    known = probed(spark)
    assert (known.cma_total, known.cma_free, known.perftest) == (0, 963178496, False)
    spark.program("ib_write_lat", "exit 0")
    assert probed(spark).perftest


SOCKETS = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0"
ANY6 = "0" * 32


def sockets(*lines: str) -> str:
    return SOCKETS + "".join(f" {number:3}: {line} {REST}\n" for number, line in enumerate(lines))


def test_who_listens_by_tcp_and_by_udp_are_facts_of_their_own(spark):
    spark.put("proc/net/tcp", sockets("00000000:0016 00000000:0000 0A", "0B01000A:0016 0A01000A:D431 01"))
    spark.put("proc/net/tcp6", sockets(f"{ANY6}:1F40 {ANY6}:0000 0A"))
    # WireGuard's, and a question to a name server on its way.
    spark.put("proc/net/udp", sockets("00000000:CA6C 00000000:0000 07", "0B01000A:8235 0101000A:0035 01"))
    spark.put("proc/net/udp6", sockets(f"{ANY6}:CA6C {ANY6}:0000 07", f"{ANY6}:A2A9 {ANY6}:0000 07"))
    known = probed(spark)
    assert known.listening == (22, 8000)
    assert known.listening_udp == (41641, 51820)


def test_live_restore_is_a_fact(spark):
    assert not probed(spark).docker.live_restore
    spark.daemon.answers["/info"]["LiveRestoreEnabled"] = True
    assert probed(spark).docker.live_restore


def examined(spark) -> dict[str, Any]:
    given = {"cache": "~/hf", "peers": {}, "interface": "", "mtu": 0, "ports": [], "texts": False}
    return spark.json("doctor.py", **given)


def test_doctor_sees_a_guard_and_other_peoples_containers_whatever_they_are_called(spark):
    spark.daemon.answers["/info"]["Swarm"] = {"LocalNodeState": "inactive"}
    assert examined(spark)["guard"] == ""
    spark.put("proc/42/comm", "earlyoom\n")
    spark.daemon.answers["/containers/json"] = [{"Id": "d" * 64, "Names": None, "Labels": None}]
    found = examined(spark)
    assert (found["guard"], found["containers"]) == ("earlyoom", ["d" * 12])


def test_what_else_carries_the_stacks_label_is_found_and_a_swarms_by_its_manager_alone(spark):
    mine = {"ID": "i", "Spec": {"Name": "n"}}
    spark.daemon.answers |= {"/volumes": {"Volumes": [{"Name": "v"}]}, "/services": [mine], "/secrets": [mine]}
    assert [(one.kind, one.name) for one in probed(spark).docker.things] == [("volume", "v")]
    spark.daemon.answers["/info"]["Swarm"] = {"NodeID": "x", "ControlAvailable": True}
    found = [(one.kind, one.id, one.name) for one in probed(spark).docker.things]
    assert found == [("secret", "i", "n"), ("service", "i", "n"), ("volume", "v", "v")]


@pytest.mark.parametrize(("output", "code"), [(NO_DRIVER, 9), ("[N/A]", 0), ("", 0)])
def test_a_look_at_a_gpu_that_does_not_answer_is_a_look_without_figures(spark, output, code):
    spark.prints("nvidia-smi", output, code)
    found = spark.json("look.py", stack=STACK, cache="~/hf")
    assert set(found["gpu"].values()) == {None}


@hypothesis_settings(max_examples=some(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=200), st.sampled_from([0, 1, 9, 18, 255]))
def test_nothing_that_nvidia_smi_prints_breaks_the_probe(spark, output, code):
    spark.program("nvidia-smi", f"printf '%s' {shlex.quote(output)}; exit {code}")
    known = probed(spark)
    assert known.gpus == ()
    assert len(known.gpu_words) <= 300
