"""What NCCL does with its environment on a Spark: picks RDMA devices, refuses bad GIDs, falls back to sockets."""

import os
import subprocess

DEVICES = "/etc/spark-infiniband"


class NcclError(RuntimeError):
    pass


def connect(rank: int, log) -> None:
    """Check this rank's own environment against this Spark's own devices, as NCCL's init would.

    Raises NcclError where NCCL fails; logs NET/Socket where NCCL silently gives up RDMA.
    """
    interface = os.environ.get("NCCL_SOCKET_IFNAME", "")
    present = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[3].split("/")[0]: line.split()[1] for line in present.splitlines()}
    if interface.lstrip("=") not in addresses.values():
        raise NcclError(f"Bootstrap : no socket interface found (NCCL_SOCKET_IFNAME={interface!r})")
    mine = [address for address, name in addresses.items() if name == interface]
    host = os.environ.get("VLLM_HOST_IP", mine[0])
    if host not in addresses:
        raise NcclError(f"The IP address {host!r} (VLLM_HOST_IP) is not an address of this node")
    wanted = os.environ.get("NCCL_IB_HCA", "")
    exact = wanted.startswith("=")
    names = [name.split(":")[0] for name in wanted.lstrip("=").split(",") if name]
    active = [name for name in sorted(os.listdir(DEVICES)) if "ACTIVE" in _read(name, "state")]
    chosen = [d for d in active if not names or any(d == n if exact else d.startswith(n) for n in names)]
    if os.environ.get("NCCL_IB_DISABLE") == "1" or not chosen or not os.path.isdir("/dev/infiniband"):
        log(f"rank {rank} NCCL INFO NET/Socket : Using [0]{interface}:{host}")
        return
    index = os.environ.get("NCCL_IB_GID_INDEX")
    for device in chosen:
        if index is not None and not _usable(device, index):
            raise NcclError(
                f"NCCL WARN Call to ibv_modify_qp failed with 22 Invalid argument, on dev {device}:1, "
                f"local GID index {index}: unhandled system error"
            )
    used = " ".join(f"[{i}]{device}:1/RoCE" for i, device in enumerate(chosen))
    log(f"rank {rank} NCCL INFO NET/IB : Using {used}; OOB {interface}:{host}")


def _read(device: str, *names: str) -> str:
    with open(os.path.join(DEVICES, device, "ports", "1", *names)) as stream:
        return stream.read().strip()


def _usable(device: str, index: str) -> bool:
    try:
        return _read(device, "gid_attrs", "types", index) == "RoCE v2" and "ffff:" in _read(device, "gids", index)
    except FileNotFoundError:
        return False
