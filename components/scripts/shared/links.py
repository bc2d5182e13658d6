"""What reaches this Spark, and what it reaches."""

from __future__ import annotations

import os
import subprocess


def ethernet_address() -> str:
    """The address of this Spark on which sshd was reached. Source: sshd(8), SSH_CONNECTION."""
    return os.environ["SSH_CONNECTION"].split()[2]


PERFTEST = ("ib_write_bw", "ib_write_lat")
"""Programs of the package perftest that measure RDMA (bandwidth.py)."""

HEADERS = 28
"""Bytes of IPv4 and ICMP headers in a ping."""


def ping(source: str, peer: str, mtu: int) -> str:
    """`answers`, `small only` (not to packets as large as the MTU) or `silent`. `source`: own address or interface."""
    argv = ["ping", "-c", "1", "-W", "2", "-I", source, peer]
    if subprocess.run(argv, capture_output=True).returncode:
        return "silent"
    full = [*argv, "-M", "do", "-s", str(mtu - HEADERS)]
    return "small only" if subprocess.run(full, capture_output=True).returncode else "answers"
