"""Trouble with a Spark's host, seen in the field: found at preview where it would break the start, else by doctor."""

from __future__ import annotations

from typing import Any

import pytest

from components.plan import host
from components.plan.decide import before_model
from components.problems import Refused, Severity
from ops.doctor import fabric_tools, guards, same_image, speed
from tests.unit.build import IDENTITY, facts, pair, plan, settings

SWARM = {"engine": "trtllm"}
MESSAGE = "unable to configure the Docker daemon"


def told(known: dict[str, Any], **config: Any) -> list[tuple[str, str, Severity]]:
    return [(one.at, one.wrong, one.severity) for one in host.troubles(settings(len(known), **config), known)]


def test_healthy_sparks_with_perftest_are_in_no_trouble():
    assert told({"spark-1": facts(1), "spark-2": facts(2)}) == []


# CmaTotal: 0 kB and CmaFree: 940604 kB, as 7.0.0-1019-nvidia shows them.
CMA = {"kernel": "7.0.0-1019-nvidia", "cma_total": 0, "cma_free": 940604 * 1024}


def test_memory_that_rdma_cannot_have_is_known_before_nccl_fails():
    ((at, wrong, severity),) = told(pair(**CMA))
    assert (at, severity) == ("spark-2", Severity.WARN)
    assert wrong == (
        "kernel 7.0.0-1019-nvidia keeps 0.9 GiB from RDMA (CmaFree is more than CmaTotal): NCCL may fail to register "
        "memory (ibv_reg_mr: Cannot allocate memory)"
    )
    (problem,) = [one for one in plan(facts_=pair(**CMA)).warnings if "CmaFree" in one.wrong]
    assert "kho=off" in problem.fix


def test_the_same_kernel_with_its_reserve_switched_off_is_fine_and_one_spark_needs_no_rdma():
    assert told(pair(kernel="7.0.0-1019-nvidia", cma_total=0, cma_free=0)) == []
    assert told(pair(kernel="6.17.0-1008-nvidia", cma_total=32 << 20, cma_free=30 << 20)) == []
    assert told({"spark-1": facts(1, **CMA)}) == []


def test_live_restore_is_refused_where_there_will_be_a_swarm_and_nowhere_else():
    live = {"docker": {"version": "28.0.0", "runtimes": ["nvidia"], "live_restore": True}}
    assert told(pair(**live)) == []
    assert told(pair(**live), engine="trtllm", serving={"launcher": "mpi"}) == []
    ((at, wrong, severity),) = told(pair(**live), engine="trtllm")
    assert (at, wrong, severity) == (
        "spark-2",
        "Docker's live-restore is on, with which it joins no Swarm",
        Severity.REFUSE,
    )
    with pytest.raises(Refused, match="live-restore"):
        before_model(settings(engine="trtllm"), pair(**live, sudo=True), IDENTITY)


def spec(path: str, *missing: str) -> dict[str, Any]:
    return {"path": path, "missing": list(missing)}


LIBRARY = "/usr/lib/aarch64-linux-gnu/libcuda.so.580.82.09"
BY_CDI = {
    "docker": {"version": "29.2.0", "runtimes": ["nvidia"], "gpu_devices": ["nvidia.com/gpu=all"]},
    "gpu_tools": ["nvidia-cdi-hook", "nvidia-container-runtime-hook"],
}


def test_a_stale_cdi_spec_is_refused_where_docker_uses_it():
    stale = {**BY_CDI, "cdi": [spec("/etc/cdi/nvidia.yaml", LIBRARY)]}
    ((at, wrong, severity),) = told(pair(**stale))
    assert (at, severity) == ("spark-2", Severity.REFUSE)
    assert wrong == f"/etc/cdi/nvidia.yaml is older than the driver: it names {LIBRARY}, which is not there"


def test_a_stale_cdi_spec_that_another_overrides_or_nobody_reads_is_a_warning_at_most():
    fresh = spec("/var/run/cdi/nvidia.yaml")
    overridden = {**BY_CDI, "cdi": [spec("/etc/cdi/nvidia.yaml", LIBRARY), fresh]}
    assert [severity for _, _, severity in told(pair(**overridden))] == [Severity.WARN]
    by_hook = {"cdi": [spec("/etc/cdi/nvidia.yaml", LIBRARY)]}
    assert [severity for _, _, severity in told(pair(**by_hook))] == [Severity.WARN]


def test_without_perftest_it_is_said_that_rdma_will_not_be_measured():
    ((at, wrong, severity),) = told(pair(perftest=False))
    assert (at, severity) == ("spark-2", Severity.NOTE)
    assert wrong == "perftest is missing: RDMA will not be measured, only TCP"
    assert told(pair(perftest=False), fabric={"minRdmaGbps": 0}) == []


# What doctor finds besides


def sample(busy: int, clock: int, power: int = 15, temperature: int = 45) -> dict[str, float]:
    return {"busy": busy, "clock": clock, "power": power, "temperature": temperature}


def test_a_gpu_that_stays_slow_under_load_needs_its_plug_pulled():
    finding = speed("spark-1", [sample(0, 208), sample(95, 513), sample(96, 630), sample(96, 650)])
    assert (finding.state, finding.detail) == (
        "FAILED",
        "stuck at 630 MHz and 15 W under load, where 2400 MHz are usual",
    )
    assert "unplug" in finding.fix


def test_a_gpu_that_is_hot_is_slow_for_another_reason():
    finding = speed("spark-1", [sample(96, 1500, 60, 88)] * 4)
    assert (finding.state, finding.detail) == ("warning", "1500 MHz at 88 °C under load: it is too hot")


def test_a_healthy_gpu_under_load_says_its_clock_and_an_idle_one_is_not_judged():
    assert speed("spark-1", [sample(96, 2418, 80, 70)] * 4).detail == "2418 MHz, 80 W, 70 °C under load"
    finding = speed("spark-1", [sample(0, 208, 4, 40)] * 4)
    assert (finding.state, finding.detail) == ("note", "not under load, so its clock says nothing")
    nothing = dict.fromkeys(("busy", "clock", "power", "temperature"))
    assert speed("spark-1", [nothing] * 4).state == "note"


def test_a_spark_without_a_guard_against_full_memory_may_hang_whole():
    finding = guards("spark-1", "")
    assert (finding.state, finding.fix) == ("warning", "on it: sudo apt install earlyoom")
    assert guards("spark-1", "systemd-oomd").state == "ok"


def test_rdma_that_was_not_measured_is_said():
    finding = fabric_tools({"spark-1": facts(1), "spark-2": facts(2, perftest=False)})
    assert finding is not None
    assert (finding.detail, finding.fix) == (
        "no perftest on spark-2: RDMA is not measured, only TCP",
        "on it: sudo apt install perftest",
    )
    assert fabric_tools(pair()) is None


def contents(layer: str, id_: str) -> dict[str, Any]:
    about = {"id": id_, "digests": [], "layers": [layer], "config": "c"}
    return {"docker": {"version": "28", "runtimes": ["nvidia"], "contents": {"i": about}}}


def test_one_image_under_two_ids_is_the_same_and_two_images_are_not():
    first = facts(1, **contents("sha256:1", "sha256:aaaa"))
    finding = same_image("i", {"spark-1": first, "spark-2": facts(2, **contents("sha256:1", "sha256:bbbb"))})
    assert finding.state == "ok"
    other = same_image("i", {"spark-1": first, "spark-2": facts(2, **contents("sha256:2", "sha256:bbbb"))})
    assert (other.state, other.detail) == ("warning", "spark-1 aaaa, spark-2 bbbb")
    assert same_image("i", {"spark-1": first, "spark-2": facts(2)}).detail == "spark-1 aaaa, spark-2 missing"
    assert same_image("i", pair()).detail == "i is on none of the Sparks yet"
