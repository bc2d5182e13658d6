"""Confirm, at the moment of the change, that this Spark's link is what was planned.

stdin   JSON: link (node, interface, address, prefix, hcas, gid_index, mtu), peers [address], record
apply   device active, GID where it was, address and MTU as planned, every peer answers with full-size packets
remove  nothing but the record
"""

import os
import subprocess
import sys

from common import ping, read, remove_record, run, say, write_record


def problems(link: dict, peers: list) -> list:
    found = []
    for device in link["hcas"]:
        port = f"/sys/class/infiniband/{device}/ports/1"
        if "ACTIVE" not in read(f"{port}/state"):
            found.append(f"{device} is {read(f'{port}/state') or 'gone'}, not ACTIVE")
        elif link["gid_index"] is not None:
            kind = read(f"{port}/gid_attrs/types/{link['gid_index']}")
            if kind != "RoCE v2":
                found.append(f"GID {link['gid_index']} of {device} is {kind or 'empty'}, not RoCE v2")
    shown = subprocess.run(["ip", "-o", "-4", "addr", "show", link["interface"]], capture_output=True, text=True)
    if f" {link['address']}/{link['prefix']} " not in shown.stdout:
        found.append(f"{link['interface']} has no longer the address {link['address']}/{link['prefix']}")
    mtu = read(f"/sys/class/net/{link['interface']}/mtu")
    if mtu != str(link["mtu"]):
        found.append(f"{link['interface']} has MTU {mtu or 'unknown'}, not {link['mtu']}")
    return found or unreachable(link, peers)


def unreachable(link: dict, peers: list) -> list:
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


def apply(given: dict) -> None:
    if not os.path.exists("/usr/bin/ping") and not os.path.exists("/bin/ping"):
        sys.exit("no program `ping`: sudo apt install iputils-ping")
    found = problems(given["link"], given["peers"])
    if found:
        sys.exit("the fabric is not as planned: " + "; ".join(found))
    say(f"{given['link']['interface']} reaches {', '.join(given['peers'])} with MTU {given['link']['mtu']}")
    write_record(given["record"], {})


def remove(given: dict) -> None:
    remove_record(given["record"])


run(apply, remove)
