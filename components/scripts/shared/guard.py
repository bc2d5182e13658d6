"""The rules that let others reach a Spark's SSH and APIs alone: where they are kept, and whether they are in force."""

from __future__ import annotations

import subprocess

from shared.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import GuardState

FILE = "/etc/dgx-spark/guard.nft"
UNIT = "/etc/systemd/system/dgx-spark-guard.service"
SERVICE = "dgx-spark-guard.service"
USUAL = "32768 60999"
"""Source: Linux, Documentation/networking/ip-sysctl.rst, ip_local_port_range."""


def state() -> GuardState:
    """`active`: systemd has loaded them; that nobody has taken them away since, root alone can see. `chosen`: the range
    of ports from which the kernel chooses."""
    try:
        done = subprocess.run(["systemctl", "is-active", "--quiet", SERVICE], capture_output=True)
        active = done.returncode == 0
    except FileNotFoundError:
        active = False
    first, last = (read("/proc/sys/net/ipv4/ip_local_port_range") or USUAL).split()
    return {"text": read(FILE), "active": active, "chosen": [int(first), int(last)]}
