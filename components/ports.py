"""The one table of TCP ports: where each one comes from, who listens there, and on which address (docs/trust.md)."""

from __future__ import annotations

from dataclasses import dataclass

VLLM = 8000
"""OpenAI API. Source: `vllm serve --help`, --port."""

VLLM_RENDEZVOUS = 29501
"""torch's rendezvous of vLLM without Ray. torch listens on every address. Source: eugr/spark-vllm-docker; pytorch,
torch/csrc/distributed/c10d/socket.cpp, listen."""

SGLANG = 30000
"""Source: `sglang.launch_server --help`, --port."""

SGLANG_RENDEZVOUS = 50000
"""torch's rendezvous. Source: NVIDIA's and the community's Spark recipes."""

TRTLLM = 8355
"""Source: NVIDIA's TensorRT-LLM recipes for DGX Spark."""

MPI_SSH = 2233
"""sshd of the MPI ranks, on each Spark's fabric address. Source: NVIDIA's TensorRT-LLM recipe for two Sparks."""

MPI = 29700
"""The first of Open MPI's own, on every address. Arbitrary; its default is 1024 and the next for ranks, and whatever
the kernel chooses for daemons. Source: Open MPI 4.1, opal/mca/btl/tcp and orte/mca/oob/tcp."""

MPI_PORTS = range(MPI, MPI + 64)

SWARM = 2377
"""Swarm's manager. Source: Docker's documentation, Swarm mode."""

SWARM_GOSSIP = 7946
"""Of every member, TCP and UDP. Source: the same."""

RAY = 6379
"""Ray's control store (GCS) on the head. Source: `ray start --help`, --port."""

RAY_DASHBOARD = 8265
"""Source: `ray start --help`, --dashboard-port."""

RAY_OWN = 29800
"""The first of those of Ray's own processes on every Spark, on every address. Arbitrary; its defaults are 10001 to
19999, 52365, and whatever the kernel chooses. Source: Ray's documentation, Configuring Ray, ports."""

RAY_AGENTS = range(RAY_OWN, RAY_OWN + 7)
RAY_METRICS = range(RAY_OWN + 7, RAY_OWN + 9)
"""Of the head's autoscaler and dashboard. Source: Ray 2.55, ray/autoscaler/_private/constants.py and
ray/dashboard/consts.py: 44217 and 44227 unless the environment says another."""

RAY_WORKERS = range(RAY_OWN + 9, RAY_OWN + 100)

PERFTEST = 18515
"""The first of a few: one per RDMA device, and one more. Source: perftest's own default."""

RANKS = 29600
"""Where rank 0 leads the other ranks (inside/together.py), on the head's fabric address. Arbitrary."""

NODE_EXPORTER = 9100
"""Source: node_exporter's own default; and so are the next ones their programs'."""

GPU_EXPORTER = 9835
PROMETHEUS = 9090
GRAFANA = 3000
GATEWAY = 4000
CHAT = 8080

SSH = 22


@dataclass(frozen=True)
class Listener:
    """What listens on a port of ours."""

    port: int
    setting: str
    """Which moves it; '' where none does."""

    who: str
    where: str
    """Of the Sparks."""

    address: str
    """`fabric`, `loopback`, or `all`: every address of the Spark."""

    guard: str
    """Who is let in."""

    inside: bool = False
    """For the stack's Sparks among themselves: `./spark setup-guard` lets in by the fabric alone."""

    count: int = 1
    """Of ports, from this one on."""

    @property
    def last(self) -> int:
        return self.port + self.count - 1


NOBODY = "whoever reaches it"

LISTENERS = (
    Listener(VLLM, "serving.port", "vLLM's API", "head", "serving.host, all", "apiKey"),
    Listener(SGLANG, "serving.port", "SGLang's API", "head", "serving.host, all", "apiKey"),
    Listener(TRTLLM, "serving.port", "TensorRT-LLM's API", "head", "serving.host, all", f"{NOBODY}; gateway in front"),
    Listener(RANKS, "", "rank 0 of the server (inside/together.py)", "head", "fabric", "ranks that prove their key",
             True),
    Listener(VLLM_RENDEZVOUS, "", "torch's rendezvous of vLLM", "head", "all", NOBODY, True),
    Listener(SGLANG_RENDEZVOUS, "", "torch's rendezvous of SGLang", "head", "all", NOBODY, True),
    Listener(MPI_SSH, "", "sshd of MPI's ranks", "all but the head", "fabric", "the ranks' key, from rank 0's address",
             True),
    Listener(MPI, "", "Open MPI's ranks and daemons", "all", "all", NOBODY, True, len(MPI_PORTS)),
    Listener(SWARM, "", "Swarm's manager", "all", "all", "members, by TLS and join token", True),
    Listener(SWARM_GOSSIP, "", "Swarm's members (UDP too)", "all", "all", "members, by the Swarm's key", True),
    Listener(RAY, "ray.port", "Ray's control store", "head", "all", NOBODY, True),
    Listener(RAY_DASHBOARD, "ray.dashboardPort", "Ray's dashboard and jobs API, where ray.dashboard", "head",
             "ray.dashboardHost, loopback", NOBODY),
    Listener(RAY_OWN, "", "Ray's agents, metrics and workers", "all", "all", NOBODY, True,
             RAY_WORKERS.stop - RAY_OWN),
    Listener(PERFTEST, "", "perftest, and TCP's measurement, for seconds", "all", "fabric", NOBODY, True, 5),
    Listener(NODE_EXPORTER, "", "node_exporter", "all", "fabric; loopback with one Spark", f"{NOBODY}, to read",
             True),
    Listener(GPU_EXPORTER, "", "the GPU's exporter", "all", "fabric; loopback with one Spark", f"{NOBODY}, to read",
             True),
    Listener(PROMETHEUS, "", "Prometheus", "head", "loopback", NOBODY),
    Listener(GRAFANA, "beside.grafanaPort", "Grafana", "head", "beside.host, all", f"{NOBODY}, to look"),
    Listener(GATEWAY, "beside.gatewayPort", "LiteLLM", "head", "beside.host, all", "gatewayKeys, to the model's API"),
    Listener(CHAT, "beside.chatPort", "Open WebUI", "head", "beside.host, all", "its accounts; the first rules"),
)  # fmt: skip
"""Beside them the ranks' own ports, which the kernel chooses (NCCL, Gloo, vLLM's workers): most on the fabric's
address, some on all (docs/trust.md)."""
