"""Addresses and MTU of the fabric's interfaces, in a netplan file of our own. Runs as root.

netplan reads all files one over the other: a later value replaces an earlier one, but lists are added together, so that
a file of others keeps its addresses on an interface of ours. Only moving it aside takes them away.

stdin   JSON: text (of our file; '' for none), ports [network devices of the QSFP ports], write (false: only look),
        aside [files of others to move aside]
stdout  JSON: before (text of our file as it was), others [{path, lists {interface of ours: [keys whose lists are added
        to ours]}, alone (only `ports` are in it)}], aside [files that were moved aside, by their former names].
        With text '' what was moved aside comes back.
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys

from shared.files import read
from shared.job import job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import FoundNetplan, Netplan, OtherNetplan

FOLDER = "/etc/netplan/"
FILE = os.path.join(FOLDER, "60-dgx-spark-fabric.yaml")

ASIDE = ".dgx-spark-aside"
"""Ends a file's name so that netplan does not read it."""


def network_of(text: str) -> dict:
    """What a file sets; {} where it can't be read."""
    try:
        import yaml  # netplan itself needs it
    except ImportError:
        return {}
    try:
        return (yaml.safe_load(text) or {}).get("network") or {}
    except (yaml.YAMLError, AttributeError):
        return {}


def other(path: str, names: list, ports: list) -> OtherNetplan | None:
    """What a file of others has to do with our interfaces; None for nothing."""
    text = read(path)
    network = network_of(text)
    ethernets = network.get("ethernets") or {}
    if not network:
        # Not to be read here: said where a name of ours stands in it, and left alone.
        ours = [name for name in names if re.search(rf"^\s*{re.escape(name)}:", text, re.MULTILINE)]
        return {"path": path, "lists": {name: [] for name in ours}, "alone": False} if ours else None
    lists = {
        name: sorted(key for key, value in (ethernets[name] or {}).items() if isinstance(value, list))
        for name in names
        if name in ethernets
    }
    alone = set(network) <= {"version", "renderer", "ethernets"} and set(ethernets) <= {*names, *ports}
    return {"path": path, "lists": lists, "alone": alone} if lists else None


def others(text: str, ports: list[str]) -> list[OtherNetplan]:
    names = re.findall(r"^    (\S+):$", text, re.MULTILINE)
    paths = [path for path in sorted(glob.glob(f"{FOLDER}*.yaml")) if path != FILE]
    return [found for path in paths if (found := other(path, names, ports))]


def moved() -> list:
    return sorted(path.removesuffix(ASIDE) for path in glob.glob(f"{FOLDER}*{ASIDE}"))


def put(text: str) -> None:
    if not text:
        if os.path.exists(FILE):
            os.unlink(FILE)
        return
    # netplan warns of files that others can read: they may hold keys of wireless networks.
    with open(os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def write(inputs: Netplan, before: str) -> None:
    """Everything, or nothing where netplan refuses it."""
    put(inputs["text"])
    for path in inputs["aside"]:
        os.rename(path, f"{path}{ASIDE}")
    back = [] if inputs["text"] else [path for path in moved() if not os.path.exists(path)]
    for path in back:
        os.rename(f"{path}{ASIDE}", path)
    done = subprocess.run(["netplan", "apply"], capture_output=True, text=True)
    if done.returncode == 0:
        return
    for path in back:
        os.rename(path, f"{path}{ASIDE}")
    for path in inputs["aside"]:
        os.rename(f"{path}{ASIDE}", path)
    put(f"{before}\n" if before else "")
    subprocess.run(["netplan", "apply"], capture_output=True)
    said = done.stderr.strip().splitlines() or ["it says nothing"]
    sys.exit(f"netplan apply: {said[-1]}; everything is as it was")


def main() -> None:
    inputs: Netplan = job()[1]
    found: FoundNetplan = {"before": read(FILE), "others": others(inputs["text"], inputs["ports"]), "aside": moved()}
    if inputs["write"]:
        write(inputs, found["before"])
    print(json.dumps(found))


main()
