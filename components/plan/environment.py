"""Each rank's communication environment, a pure function of where the Spark sits on the fabric.

Left out on purpose (docs/architecture.md has the reasons): NCCL_TIMEOUT and MN_IF_NAME, which no library
reads; NCCL_NET_GDR_LEVEL, since GB10 has no GPUDirect; VLLM_RPC_TIMEOUT=1800, which is milliseconds.
"""

from __future__ import annotations

from components import ports
from components.facts.fabric import NodeLink
from components.facts.spark import NodeFacts

EXACT = "="
"""Makes NCCL_IB_HCA match whole names; else `rocep1s0f1` also selects `rocep1s0f1v0`.
Source: NCCL user guide, NCCL_IB_HCA."""

SINGLE_NODE = {"NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
"""One Spark has no peer: keep the libraries from looking for one on any interface."""


def communication(link: NodeLink) -> dict[str, str]:
    """NCCL, Gloo, UCX, MPI and torch variables of one rank."""
    environment = {
        "GLOO_SOCKET_IFNAME": link.interface,
        "TP_SOCKET_IFNAME": link.interface,
        "NCCL_SOCKET_IFNAME": link.interface,
        "OMPI_MCA_btl_tcp_if_include": link.interface,
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET",
        "NCCL_IGNORE_CPU_AFFINITY": "1",
    }
    if not link.hcas:
        return {**environment, "NCCL_IB_DISABLE": "1", "UCX_NET_DEVICES": link.interface}
    environment |= {
        "NCCL_IB_DISABLE": "0",
        "NCCL_IB_HCA": EXACT + ",".join(link.hcas),
        # Device and port: a netdev's name would restrict UCX to TCP over it.
        "UCX_NET_DEVICES": ",".join(f"{hca}:1" for hca in link.hcas),
        "NCCL_IB_ROCE_VERSION_NUM": "2",
        "NCCL_IB_ADDR_FAMILY": "AF_INET",
    }
    if link.gid_index is not None:
        environment["NCCL_IB_GID_INDEX"] = str(link.gid_index)
    elif link.gid_range is not None:
        # Among several IPv4 addresses of a device NCCL takes the lowest index, unless told where to look.
        environment["NCCL_IB_ADDR_RANGE"] = link.gid_range
    return environment


def chosen_gpu(facts: NodeFacts) -> dict[str, str]:
    """Hides the others: a container gets all of a Spark's GPUs. By number, since vLLM takes no UUID here."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(facts.gpus[0].index)}


RAY_FOLDER = "/tmp/ray"
"""Of Ray's session; on the head a volume, in which its container and the server's find each other's sockets."""


def ray_node(link: NodeLink) -> dict[str, str]:
    """What Ray and vLLM need to know of the Spark they are on."""
    return {
        "VLLM_HOST_IP": link.address,
        # Else /tmp, of which each container has its own: the driver in the server's would wait for ever for the rank in
        # Ray's. Source: vLLM 0.32, utils/network_utils.py (get_open_zmq_ipc_path); v1/executor/ray_executor_v2.py.
        "VLLM_RPC_BASE_PATH": RAY_FOLDER,
        "RAY_NODE_IP_ADDRESS": link.address,
        "RAY_OVERRIDE_NODE_IP_ADDRESS": link.address,
        # Ray's memory monitor kills ranks on a machine whose GPU memory is main memory.
        "RAY_memory_monitor_refresh_ms": "0",
        # Ray would show "similar" lines of several ranks as one; which rank is on RDMA must stay visible.
        "RAY_DEDUP_LOGS": "0",
        # Seconds, else 60, after which a head gives up: its first start reads hundreds of modules from a cold disk.
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
        "AUTOSCALER_METRIC_PORT": str(ports.RAY_METRICS[0]),
        "DASHBOARD_METRIC_PORT": str(ports.RAY_METRICS[1]),
        # A worker whose head was replaced gives up its old session after this many seconds, not after 60.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    }
