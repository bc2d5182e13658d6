"""The networks of the simulated Sparks.

Management: a bridge in this machine's namespace, reachable from here and from every Spark.
Fabric: two bridges in a namespace of their own, one per twin, standing in for a 200G switch; every
Spark has all four ConnectX-7 netdevs plugged in, and a port is cabled by setting its link up.
"""

from __future__ import annotations

from pathlib import Path

from simulator.layout import BRIDGE, FABRIC_NAMESPACE, GATEWAY, MANAGEMENT, TWINS, Spark
from simulator.shell import run

MTU = 9000
RATE_GBPS = 200


def ip(*words: str, namespace: str | None = None, check: bool = True) -> str:
    return run(["ip", *(["-n", namespace] if namespace else []), *words], check=check)


def up(sparks: list[Spark]) -> None:
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{GATEWAY}/{MANAGEMENT.prefixlen}", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    ip("netns", "add", FABRIC_NAMESPACE)
    for twin in range(len(TWINS)):
        ip("link", "add", f"twin{twin}", "mtu", str(MTU), "type", "bridge", namespace=FABRIC_NAMESPACE)
        ip("link", "set", f"twin{twin}", "up", namespace=FABRIC_NAMESPACE)
    for spark in sparks:
        _plug(spark)


def _plug(spark: Spark) -> None:
    ip("netns", "add", spark.name)
    ip("link", "set", "lo", "up", namespace=spark.name)
    ip("link", "add", f"mg-{spark.name}", "type", "veth", "peer", "name", "enP7s7", "netns", spark.name)
    ip("link", "set", f"mg-{spark.name}", "master", BRIDGE, "up")
    ip("addr", "add", f"{spark.address}/{MANAGEMENT.prefixlen}", "dev", "enP7s7", namespace=spark.name)
    ip("link", "set", "enP7s7", "up", namespace=spark.name)
    for port in (0, 1):
        for twin, (netdev, _) in enumerate(TWINS):
            near, far = netdev.format(port=port), f"s{spark.index}p{port}t{twin}"
            veth = ("type", "veth", "peer", "name", far, "mtu", str(MTU), "netns", FABRIC_NAMESPACE)
            ip("link", "add", near, "mtu", str(MTU), *veth, namespace=spark.name)
            ip("link", "set", far, "master", f"twin{twin}", "up", namespace=FABRIC_NAMESPACE)
    cable(spark, port=1)


WIFI = "wlP9s9"


def join_wifi(spark: Spark) -> None:
    """The default route of a running Spark leaves by Wi-Fi, as in most homes; there the Sparks do not reach each
    other."""
    ip("link", "add", WIFI, "type", "veth", "peer", "name", f"{WIFI}-air", namespace=spark.name)
    ip("addr", "add", f"10.88.{spark.index}.2/24", "dev", WIFI, namespace=spark.name)
    for end in (WIFI, f"{WIFI}-air"):
        ip("link", "set", end, "up", namespace=spark.name)
    ip("route", "add", "default", "via", f"10.88.{spark.index}.1", namespace=spark.name)


def leave_wifi(spark: Spark) -> None:
    ip("link", "del", WIFI, namespace=spark.name)


def cable(spark: Spark, port: int | None, *, gid_index: int = 3, mtu: int = MTU, rate: int = RATE_GBPS) -> None:
    """Plug the cable into one QSFP port of a running Spark, or pull it (`port=None`).

    The port's twins come up with their addresses and a RoCE v2 GID at `gid_index`; all else goes down.
    """
    for candidate in (0, 1):
        cabled = candidate == port
        for twin, (netdev, device) in enumerate(TWINS):
            name = netdev.format(port=candidate)
            ip("addr", "flush", "dev", name, namespace=spark.name)
            ip("link", "set", name, "mtu", str(mtu), "up" if cabled else "down", namespace=spark.name)
            address = spark.fabric_address(twin) if cabled else None
            if address:
                ip("addr", "add", f"{address}/24", "dev", name, namespace=spark.name)
            describe(spark, device.format(port=candidate), name, address, gid_index=gid_index, rate=rate)


def also(spark: Spark, address: str, *, gid_index: int, chosen_index: int) -> None:
    """A second address on the first twin of the cabled port, as NVIDIA's link-local netplan gives one: its RoCE v2 GID
    is at `gid_index`, that of the usual address at `chosen_index`."""
    netdev, device = (pattern.format(port=1) for pattern in TWINS[0])
    ip("addr", "add", f"{address}/16", "dev", netdev, namespace=spark.name)
    describe(spark, device, netdev, spark.fabric_address(0), gid_index=chosen_index, rate=RATE_GBPS)
    _gid(spark, device, netdev, address, gid_index)


def wireless(spark: Spark, on: bool) -> None:
    """Reach the Spark over wlP9s9 with its default route, and unplug enP7s7; or as before."""
    if on:
        ip("link", "add", "enP7s8", "type", "veth", "peer", "name", "unplugged", namespace=spark.name)
        renames = [("enP7s7", "wlP9s9"), ("enP7s8", "enP7s7")]
    else:
        ip("link", "del", "enP7s7", namespace=spark.name)
        renames = [("wlP9s9", "enP7s7")]
    for old, new in renames:
        ip("link", "set", old, "down", namespace=spark.name)
        ip("link", "set", old, "name", new, namespace=spark.name)
    used = "wlP9s9" if on else "enP7s7"
    ip("link", "set", used, "up", namespace=spark.name)
    if on:
        ip("route", "add", "default", "via", str(GATEWAY), "dev", used, namespace=spark.name)


def rdma_down(spark: Spark, twin: int) -> None:
    """The RDMA device of one twin of the cabled port goes down, and its network device does not."""
    device = TWINS[twin][1].format(port=1)
    (spark.infiniband / device / "ports" / "1" / "state").write_text("1: DOWN\n")


def describe(spark: Spark, device: str, netdev: str, address: str | None, *, gid_index: int, rate: int) -> None:
    """Write the sysfs files of one RDMA device the way the mlx5 driver shows them."""
    base = spark.infiniband / device
    port = base / "ports" / "1"
    for folder in (
        base / "device" / "net" / netdev,
        port / "gids",
        port / "gid_attrs" / "types",
        port / "gid_attrs" / "ndevs",
    ):
        folder.mkdir(parents=True, exist_ok=True)
    for old in [*(port / "gids").iterdir(), *(port / "gid_attrs").glob("*/*")]:
        old.unlink()
    (port / "state").write_text("4: ACTIVE\n" if address else "1: DOWN\n")
    (port / "phys_state").write_text("5: LinkUp\n" if address else "3: Disabled\n")
    (port / "link_layer").write_text("Ethernet\n")
    (base / "fw_ver").write_text("28.45.4028\n")
    (base / "board_id").write_text("NVD0000000087\n")
    (base / "hca_type").write_text("MT4129\n")
    (port / "counters").mkdir(exist_ok=True)
    for counter in ("port_rcv_data", "port_xmit_data", "port_rcv_packets", "port_xmit_packets"):
        (port / "counters" / counter).write_text("1000\n")
    (port / "rate").write_text(f"{rate} Gb/sec (4X HDR)\n")
    link_local = "fe80:0000:0000:0000:4ab0:2dff:fe00:0000"
    table = {0: (link_local, "IB/RoCE v1"), 1: (link_local, "RoCE v2")}
    for index, (gid, kind) in table.items():
        _entry(port, index, gid, kind, netdev)
    if address:
        _gid(spark, device, netdev, address, gid_index)


def _gid(spark: Spark, device: str, netdev: str, address: str, index: int) -> None:
    """The GIDs of an IPv4 address: v1 one below v2, which is at `index`."""
    octets = [int(octet) for octet in address.split(".")]
    mapped = "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*octets)
    port = spark.infiniband / device / "ports" / "1"
    _entry(port, index - 1, mapped, "IB/RoCE v1", netdev)
    _entry(port, index, mapped, "RoCE v2", netdev)


def _entry(port: Path, index: int, gid: str, kind: str, netdev: str) -> None:
    (port / "gids" / str(index)).write_text(gid + "\n")
    (port / "gid_attrs" / "types" / str(index)).write_text(kind + "\n")
    (port / "gid_attrs" / "ndevs" / str(index)).write_text(netdev + "\n")


def power(spark: Spark, on: bool) -> None:
    """What others see of its power: without it no link is up, so no word comes that its connections are gone, and it
    has forgotten them when the links are up again."""
    state = "up" if on else "down"
    ip("link", "set", f"mg-{spark.name}", state, check=False)
    for port in (0, 1):
        for twin in range(len(TWINS)):
            ip("link", "set", f"s{spark.index}p{port}t{twin}", state, namespace=FABRIC_NAMESPACE, check=False)


def forget(spark: Spark) -> None:
    """Its kernel forgets every connection, as with its memory."""
    run(["nsenter", f"--net=/run/netns/{spark.name}", "ss", "--kill", "--tcp", "--all"], check=False)


def throttle(spark: Spark, mbit: int | None) -> None:
    """Let no more than `mbit` Mbit/s out of the cabled fabric port's twins, whatever they say of themselves; None: all
    that this machine can do."""
    for netdev, _ in TWINS:
        tc = ["tc", "-n", spark.name, "qdisc"]
        name = netdev.format(port=1)
        run([*tc, "del", "dev", name, "root"], check=False)
        if mbit is not None:
            shape = ["tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "100ms"]
            run([*tc, "add", "dev", name, "root", *shape])


def down(sparks: list[Spark]) -> None:
    for spark in sparks:
        # By name first: a namespace frees its links only some time after it is deleted.
        ip("link", "del", f"mg-{spark.name}", check=False)
        ip("netns", "del", spark.name, check=False)
    ip("netns", "del", FABRIC_NAMESPACE, check=False)
    ip("link", "del", BRIDGE, check=False)
