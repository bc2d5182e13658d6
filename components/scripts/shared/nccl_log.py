"""What NCCL's own log says of the network between ranks."""

from __future__ import annotations

import re
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Network


NCCL = re.compile(r"([\w.-]+):(\d+):\d+ \[-?\d+\] (?:\S+ )?NCCL (?:INFO|WARN) (.*)")
"""host, pid and text of a line of NCCL's log, whatever Ray or MPI have put before it."""

CHANNEL, CHOSEN = re.compile(r"via NET/([^/]+)"), re.compile(r"Using network (.+)")
"""A connection to another Spark that was really set up; and what the communicator uses between Sparks. Not
`NET/IB : Using`, which is the list of devices, printed with an empty one too. Source: NCCL 2.27 to 2.30,
src/transport/net.cc and src/init.cc."""

NO_DEVICE = "NCCL finds no RDMA device in the container"

NO_PLUGIN = "NCCL_NET names a network that has no device there"


def networks(lines: Iterable[str]) -> list[Network]:
    """What each rank's NCCL says of its network: {host, network, proven, finding}, one for each Spark that speaks.

    network   `IB`, `Socket` or a plugin's name, of the last communicator; '' while NCCL has not said it
    proven    a channel runs over it, so it is more than a choice
    finding   what is wrong by NCCL's own words, or ''
    """
    found: dict = {}
    for line in lines:
        match = NCCL.search(line) if "NCCL" in line else None
        if match:
            host, pid, text = match.groups()
            about = found.pop((host, pid), {"chosen": "", "channels": set(), "off": False, "finding": ""})
            _read_nccl(about, text)
            found[host, pid] = about
    # A rank that was started again speaks for itself: the process that spoke last counts.
    last = {host: about for (host, _), about in found.items()}
    return [_network(host, about) for host, about in sorted(last.items())]


def _read_nccl(about: dict, text: str) -> None:
    if match := CHANNEL.search(text):
        about["channels"].add(match[1])
    elif match := CHOSEN.match(text):
        about["chosen"] = match[1].strip()
    elif text.startswith("NCCL_IB_DISABLE set by environment to 1"):
        about["off"] = True
    elif text.startswith(("NET/IB : No device found", "Failed to initialize NET plugin IB")):
        about["finding"] = NO_DEVICE
    elif text.startswith("Failed to initialize any NET plugin"):
        about["finding"] = NO_PLUGIN


def _network(host: str, about: dict[str, Any]) -> Network:
    # One channel over sockets slows all down.
    used = "Socket" if "Socket" in about["channels"] else next(iter(sorted(about["channels"])), "")
    finding = "" if about["off"] and about["finding"] == NO_DEVICE else about["finding"]
    return {"host": host, "network": used or about["chosen"], "proven": bool(used), "finding": finding}
