"""Trouble with a Spark's host that was seen in the field, as far as the probe shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.facts.spark import NodeFacts
from components.facts.usable import gpus_by_cdi
from components.plan.checks import on_swarm
from components.problems import Problem, Severity
from components.settings import Settings

REFRESH = "on it: sudo systemctl restart nvidia-cdi-refresh, or sudo nvidia-ctk cdi generate --output="


def troubles(settings: Settings, facts: Mapping[str, NodeFacts]) -> Iterator[Problem]:
    """Refused where the start would fail for certain."""
    for name, node in facts.items():
        yield from _stale_cdi(name, node)
        if on_swarm(settings) and node.docker.live_restore:
            yield Problem(
                name,
                "Docker's live-restore is on, with which it joins no Swarm",
                'on it: "live-restore": false in /etc/docker/daemon.json, then sudo systemctl restart docker; or do '
                "without Swarm: pulumi config set --path serving.launcher mpi",
            )
        if len(settings.nodes) > 1:
            yield from _pinned_memory(name, node)
            yield from _unmeasured(settings, name, node)


def _stale_cdi(name: str, node: NodeFacts) -> Iterator[Problem]:
    """A later file's devices go before an earlier one's. Source: CDI, priority of the directories."""
    for number, spec in enumerate(node.cdi, 1):
        if spec.missing:
            used = number == len(node.cdi) and gpus_by_cdi(node)
            yield Problem(
                name,
                f"{spec.path} is older than the driver: it names {spec.missing[0]}, which is not there",
                f"{REFRESH}{spec.path}" if number == len(node.cdi) else f"on it: sudo rm {spec.path}",
                Severity.REFUSE if used else Severity.WARN,
            )


def _pinned_memory(name: str, node: NodeFacts) -> Iterator[Problem]:
    """Kernels 7.0.0-1019 and about hand the reserve of kexec handover to the allocator as memory that no device may
    pin. Source: NVIDIA/NV-Kernels pulls 590 and 591."""
    if node.cma_free > node.cma_total:
        yield Problem(
            name,
            f"kernel {node.kernel} keeps {(node.cma_free - node.cma_total) / 2**30:.1f} GiB from RDMA (CmaFree is more "
            "than CmaTotal): NCCL may fail to register memory (ibv_reg_mr: Cannot allocate memory)",
            "on it: kho=off on the kernel's command line (/etc/default/grub), sudo update-grub, reboot; or boot 6.17",
            Severity.WARN,
        )


def _unmeasured(settings: Settings, name: str, node: NodeFacts) -> Iterator[Problem]:
    if settings.fabric.min_rdma_gbps and not node.perftest:
        wrong = "perftest is missing: RDMA will not be measured, only TCP"
        yield Problem(name, wrong, "on it: sudo apt install perftest", Severity.NOTE)
