"""What NCCL does with its environment on a Spark: picks RDMA devices, refuses bad GIDs, falls back to sockets.

It says so as NCCL 2.28.9 does (recorded logs: tests/unit/nccl).
"""

import os
import platform
import subprocess

DEVICES = "/etc/spark-infiniband"

SYSTEM_ERROR = "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"
USAGE_ERROR = "NCCL error: invalid usage (run with NCCL_DEBUG=WARN for details)"


class NcclError(RuntimeError):
    pass


def info(text: str) -> None:
    if os.environ.get("NCCL_DEBUG") == "INFO":
        print(f"{platform.node()}:{os.getpid()}:{os.getpid()} [0] NCCL INFO {text}", flush=True)


def warn(where: str, text: str) -> None:
    print(f"{platform.node()}:{os.getpid()}:{os.getpid()} [0] {where} NCCL WARN {text}", flush=True)


def connect() -> None:
    """Check this rank's own environment against this Spark's own devices, as NCCL's init would.

    Raises NcclError where NCCL fails; takes sockets where NCCL silently gives up RDMA.
    """
    interface, host = _bootstrap()
    chosen = [] if _switched_off() else _devices(interface, host)
    if chosen:
        _check_gids(chosen)
    else:
        info("Failed to initialize NET plugin IB")
        if os.environ.get("NCCL_NET") == "IB":
            warn("plugin/net.cc:379", "Failed to initialize any NET plugin")
            raise NcclError(USAGE_ERROR)
        info(f"NET/Socket : Using [0]{interface}:{host}<0>")
    network = "IB" if chosen else "Socket"
    for text in (
        f"Initialized NET plugin {network}",
        f"Assigned NET plugin {network} to comm",
        f"Using network {network}",
        f"Channel 00/0 : 1[0] -> 0[0] [receive] via NET/{network}/0",
        f"Channel 00/0 : 0[0] -> 1[0] [send] via NET/{network}/0",
    ):
        info(text)


def _bootstrap() -> tuple:
    """(interface, its address) of the sockets with which the ranks find each other."""
    interface = os.environ.get("NCCL_SOCKET_IFNAME", "")
    present = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[3].split("/")[0]: line.split()[1] for line in present.splitlines()}
    if interface.lstrip("=") not in addresses.values():
        warn("bootstrap.cc:114", "Bootstrap : no socket interface found")
        raise NcclError(USAGE_ERROR)
    mine = [address for address, name in addresses.items() if name == interface]
    host = os.environ.get("VLLM_HOST_IP", mine[0])
    if host not in addresses:
        raise NcclError(f"The IP address {host!r} (VLLM_HOST_IP) is not an address of this node")
    return interface, host


def _switched_off() -> bool:
    if os.environ.get("NCCL_IB_DISABLE") != "1":
        return False
    info("NCCL_IB_DISABLE set by environment to 1.")
    return True


def _devices(interface: str, host: str) -> list:
    """The RDMA devices that NCCL finds; it lists them even where there are none."""
    wanted = os.environ.get("NCCL_IB_HCA", "")
    exact = wanted.startswith("=")
    names = [name.split(":")[0] for name in wanted.lstrip("=").split(",") if name]
    active = [name for name in sorted(os.listdir(DEVICES)) if "ACTIVE" in _read(name, "state")]
    chosen = [d for d in active if not names or any(d == n if exact else d.startswith(n) for n in names)]
    if not os.path.isdir("/dev/infiniband"):
        chosen = []
    if not chosen:
        info("NET/IB : No device found.")
    listed = "".join(f"[{i}]{device}:1/RoCE " for i, device in enumerate(chosen))
    info(f"NET/IB : Using {listed}[RO]; OOB {interface}:{host}<0>")
    return chosen


def _check_gids(chosen: list) -> None:
    index = os.environ.get("NCCL_IB_GID_INDEX")
    for device in chosen:
        if index is not None and not _usable(device, index):
            warn(
                "misc/ibvwrap.cc:307",
                f"Call to ibv_modify_qp failed with 22 Invalid argument, on dev {device}:1, curr state INIT, next "
                f"state RTR, local GID index {index}, local GID ::, remote GID ::",
            )
            raise NcclError(SYSTEM_ERROR)


def _read(device: str, *names: str) -> str:
    with open(os.path.join(DEVICES, device, "ports", "1", *names)) as stream:
        return stream.read().strip()


def _usable(device: str, index: str) -> bool:
    try:
        return _read(device, "gid_attrs", "types", index) == "RoCE v2" and "ffff:" in _read(device, "gids", index)
    except FileNotFoundError:
        return False
