"""Settings and facts of a healthy pair of Sparks, to change in one place per test."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from components.facts.hub import File, Model
from components.facts.spark import NodeFacts, RdmaDevice
from components.plan.decide import decide
from components.plan.leftovers import State
from components.plan.values import Identity, Plan
from components.settings import Settings, load

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1"
IDENTITY = Identity("organization", "dgx-spark", "test")
MODEL = Model(
    "openai/gpt-oss-120b",
    "c0ffee" + "0" * 34,
    (File("config.json", 700, None), File("model-00001-of-00001.safetensors", 65 * 10**9, "ab" * 32)),
    {"num_attention_heads": 64, "max_position_embeddings": 131072},
)

FOUR_DOWN = (
    "rocep1s0f0 port 1 ==> enp1s0f0np0 (Down)\n"
    "rocep1s0f1 port 1 ==> enp1s0f1np1 (Down)\n"
    "roceP2p1s0f0 port 1 ==> enP2p1s0f0np0 (Down)\n"
    "roceP2p1s0f1 port 1 ==> enP2p1s0f1np1 (Down)\n"
)


def settings(count: int = 2, /, **config: Any) -> Settings:
    """Stack config of `count` Sparks, read as Pulumi hands it over; `config` adds or replaces keys."""
    raw: dict[str, Any] = {
        "nodes": [{"name": f"spark-{n}", "host": f"10.0.0.{n}"} for n in range(1, count + 1)],
        "ssh": {"hostKeys": {f"spark-{n}": KEY for n in range(1, count + 1)}},
        "engine": "vllm",
        "model": "gpt-oss-120b",
        **config,
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()}
    return load({f"dgx-spark:{key}": text for key, text in texts.items()})


ON_RAY = {"executor": "ray"}
"""Of `serving`: with Ray's containers and one driver in place of a rank per Spark."""


def mapped(address: str) -> str:
    """An IPv4 address as a GID, as sysfs prints it."""
    high, low = divmod(int(ipaddress.IPv4Address(address)), 1 << 16)
    return f"0000:0000:0000:0000:0000:ffff:{high:04x}:{low:04x}"


def hca(
    name: str, netdev: str, gids: dict[int, str], /, *, active: bool = True, rate: str = "200 Gb/sec (4X HDR)"
) -> RdmaDevice:
    """`gids`: index of the RoCE v2 GID → IPv4 address; the v1 GID of each is one below."""
    table = [{"index": 1, "gid": "fe80:0000:0000:0000:4ab0:2dff:fe00:0001", "type": "RoCE v2"}]
    for index, address in gids.items():
        table.append({"index": index - 1, "gid": mapped(address), "type": "IB/RoCE v1"})
        table.append({"index": index, "gid": mapped(address), "type": "RoCE v2"})
    state = "4: ACTIVE" if active else "1: DOWN"
    return RdmaDevice.model_validate({"name": name, "netdev": netdev, "state": state, "rate": rate, "gids": table})


def twins(number: int, *, first: int = 3, second: int = 3) -> list[RdmaDevice]:
    """Both halves of the second QSFP port of Spark `number`; `first` and `second`: the indexes of their GIDs."""
    return [
        hca("rocep1s0f1", "enp1s0f1np1", {first: f"192.168.177.{number}"}),
        hca("roceP2p1s0f1", "enP2p1s0f1np1", {second: f"192.168.178.{number}"}),
    ]


def facts(number: int = 1, **changes: Any) -> NodeFacts:
    """A Spark with its second QSFP port cabled, both twins with an address."""
    raw: dict[str, Any] = {
        "machine_id": f"machine-{number}",
        "boot_id": "boot",
        "hostname": f"spark-{number}",
        "architecture": "aarch64",
        "home": "/home/nvidia",
        "uid": 1000,
        "gid": 1000,
        "memory": 128 * 10**9,
        "cache": {"path": "/home/nvidia/.cache/huggingface", "free": 10**12, "held": {}},
        "gpus": [{"name": "NVIDIA GB10", "uuid": f"GPU-{number}", "driver": "580.95.05"}],
        "docker": {"version": "28.0.0", "runtimes": ["nvidia", "runc"]},
        "links": [
            {"name": "enP7s7", "mtu": 1500, "addresses": [f"10.0.0.{number}/24"]},
            {"name": "enp1s0f1np1", "mtu": 9000, "addresses": [f"192.168.177.{number}/24"]},
            {"name": "enP2p1s0f1np1", "mtu": 9000, "addresses": [f"192.168.178.{number}/24"]},
        ],
        "ibdev2netdev": FOUR_DOWN.replace("f1np1 (Down)", "f1np1 (Up)"),
        "rdma": [
            hca("rocep1s0f0", "enp1s0f0np0", {}, active=False),
            hca("roceP2p1s0f0", "enP2p1s0f0np0", {}, active=False),
            *twins(number),
        ],
        "infiniband_device": True,
        "perftest": True,
        "listening": [22],
        "host_key": KEY,
        "lease": None,
        "records": {},
        **changes,
    }
    return NodeFacts.model_validate(raw)


def pair(**changes: Any) -> dict[str, NodeFacts]:
    """Facts of two Sparks; `changes` are of the second."""
    return {"spark-1": facts(1), "spark-2": facts(2, **changes)}


def plan(
    settings_: Settings | None = None,
    facts_: dict[str, NodeFacts] | None = None,
    model: Model = MODEL,
    draft: Model | None = None,
) -> Plan:
    return decided(settings_ or settings(), facts_, model, draft=draft)


def decided(
    chosen: Settings,
    facts_: dict[str, NodeFacts] | None = None,
    model: Model = MODEL,
    staged: tuple[Model, ...] = (),
    draft: Model | None = None,
    state: State | None = None,
) -> Plan:
    known = facts_ or {node.name: facts(number) for number, node in enumerate(chosen.nodes, 1)}
    return decide(chosen, known, model, IDENTITY, fresh="fresh", staged=staged, draft=draft, state=state)
