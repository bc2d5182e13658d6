"""Confirm, at the moment of the change, that this Spark's link is what was planned.

stdin   JSON: link (node, interface, address, prefix, hcas, gid_index, gids [{device, index, address}], mtu), peers
        [address], record
apply   device active, GID where it was and of the same address, address and MTU as planned, every peer answers with
        full-size packets
remove  nothing but the record
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import sys

from shared.files import read
from shared.job import run, say
from shared.links import ping
from shared.records import remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Fabric, Link


INFINIBAND = "/sys/class/infiniband"


def problems(link: Link, peers: list) -> list:
    planned = {gid["device"]: gid for gid in link["gids"]}
    found = []
    for device in link["hcas"]:
        # Set by hand, an index comes without the address that it maps.
        gid = planned.get(device)
        index, address = (gid["index"], gid["address"]) if gid else (link["gid_index"], "")
        found += wrong_device(device, index, address)
    shown = subprocess.run(["ip", "-o", "-4", "addr", "show", link["interface"]], capture_output=True, text=True)
    if f" {link['address']}/{link['prefix']} " not in shown.stdout:
        found.append(f"{link['interface']} has no longer the address {link['address']}/{link['prefix']}")
    mtu = read(f"/sys/class/net/{link['interface']}/mtu")
    if mtu != str(link["mtu"]):
        found.append(f"{link['interface']} has MTU {mtu or 'unknown'}, not {link['mtu']}")
    return found or unreachable(link, peers)


def wrong_device(device: str, index: int | None, address: str) -> list:
    """`index`: of the GID it is reached by, None where nobody knows; `address`: what that maps, '' for any."""
    port = f"{INFINIBAND}/{device}/ports/1"
    if "ACTIVE" not in read(f"{port}/state"):
        return [f"{device} is {read(f'{port}/state') or 'gone'}, not ACTIVE"]
    if index is None:
        return []
    kind = read(f"{port}/gid_attrs/types/{index}")
    if kind != "RoCE v2":
        return [f"GID {index} of {device} is {kind or 'empty'}, not RoCE v2"]
    maps = ipaddress.IPv6Address(read(f"{port}/gids/{index}")).ipv4_mapped
    if address and str(maps) != address:
        return [f"GID {index} of {device} maps {maps or 'no IPv4 address'}, not {address}"]
    return []


def unreachable(link: Link, peers: list) -> list:
    found = []
    for peer in peers:
        state = ping(link["address"], peer, link["mtu"])
        if state == "silent":
            found.append(f"{peer} does not answer over {link['interface']}: cable, switch or a firewall")
        elif state == "small only":
            found.append(
                f"{peer} answers, but not to packets of {link['mtu']} bytes: set the MTU on the switch and both ends"
            )
    return found


def apply(inputs: Fabric) -> None:
    if not shutil.which("ping"):
        sys.exit("no program `ping`: sudo apt install iputils-ping")
    found = problems(inputs["link"], inputs["peers"])
    if found:
        sys.exit("the fabric is not as planned: " + "; ".join(found))
    say(f"{inputs['link']['interface']} reaches {', '.join(inputs['peers'])} with MTU {inputs['link']['mtu']}")
    write_record(inputs["record"], {})


def remove(inputs: Fabric) -> None:
    remove_record(inputs["record"])


run(apply, remove)
