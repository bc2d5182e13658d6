"""What a preview would say of a catalog entry on so many Sparks in good order; no Spark is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from components.catalog import Entry
from components.facts.hub import File, Model
from components.facts.spark import NodeFacts
from components.plan import checks, decide, memory
from components.plan.engines import Context
from components.plan.engines.common import split
from components.plan.engines.registry import api_port
from components.plan.fit import MEM_TOTAL, estimate
from components.plan.values import Identity
from components.problems import Severity
from components.settings import PROJECT, Settings, load

Word = Literal["fits", "tight", "does not fit", "refused", "unknown"]

MEMORY = ("serving.maxModelLen", "serving.gpuMemoryUtilization")
"""Where the estimate's refusals point to (plan/memory.py)."""


@dataclass(frozen=True)
class Verdict:
    word: Word
    why: str
    """Of all but `fits`, in the preview's words."""

    tensor: int = 0
    pipeline: int = 0
    context: int = 0
    """Tokens with which it is served."""

    longest: int = 0
    """Tokens that fit."""

    @property
    def runs(self) -> bool:
        return self.word in ("fits", "tight")


def judge(entry: Entry, engine: str, sparks: int, own: str = "") -> Verdict:
    """`own`: the user's catalog, where the entry may be from."""
    if entry.weights_gb is None or entry.geometry is None:
        return Verdict("unknown", "neither its size nor its geometry is known here: the preview asks the hub")
    settings, facts = _cluster(engine, sparks, own)
    settings = settings.model_copy(update={"model": entry.id})
    model = _model(entry)
    context = Context(
        settings, facts, {}, model, entry, IDENTITY, api_port(settings), decide.guesses(settings, model), None
    )
    problems = [*checks.engine(settings, facts), *decide.with_model(context)]
    refused = [problem for problem in problems if problem.severity is Severity.REFUSE]
    others = [problem for problem in refused if problem.at not in MEMORY]
    found = estimate(memory.load_of(context))
    tensor, pipeline = split(settings, model.geometry)
    word: Word = "refused" if others else "does not fit" if refused else "tight" if found.tight else "fits"
    shown = others or refused or [problem for problem in problems if found.tight and problem.at in MEMORY]
    why = shown[0].wrong if shown else ""
    return Verdict(word, why, tensor, pipeline, found.context, found.longest_context)


IDENTITY = Identity("organization", PROJECT, "catalog")


def _model(entry: Entry) -> Model:
    """As the hub would show it, as far as the catalog tells."""
    known = entry.geometry
    assert known is not None
    config: dict[str, Any] = {
        "num_hidden_layers": known.layers,
        "num_attention_heads": known.heads,
        "num_key_value_heads": known.kv_heads or known.heads,
        "max_position_embeddings": known.max_length,
        **({"head_dim": known.head_dim} if known.head_dim else {}),
        **({"num_experts": known.experts} if known.experts else {}),
        # Its value is not read: the cache is the catalog's, and this says that no head divides it.
        **({"kv_lora_rank": 1} if entry.cache and entry.cache.kind == "mla" else {}),
    }
    size = int((entry.download_gb or 0) * 1e9)
    return Model(entry.id, "0" * 40, (File("model.safetensors", size, "0" * 64),), config)


@cache
def _cluster(engine: str, sparks: int, own: str) -> tuple[Settings, dict[str, NodeFacts]]:
    """A stack of so many Sparks in good order."""
    names = [f"spark-{number}" for number in range(1, sparks + 1)]
    raw = {
        "nodes": json.dumps([{"name": name, "host": f"10.0.0.{n}"} for n, name in enumerate(names, 1)]),
        "ssh": json.dumps({"hostKeys": dict.fromkeys(names, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1")}),
        "engine": engine,
        "model": "any",
        **({"catalog": own} if own else {}),
    }
    return load({f"{PROJECT}:{key}": text for key, text in raw.items()}), {name: _spark(name) for name in names}


def _spark(name: str) -> NodeFacts:
    return NodeFacts.model_validate({
        "machine_id": name, "boot_id": "", "hostname": name, "architecture": "aarch64", "home": "/home/nvidia",
        "uid": 1000, "gid": 1000, "memory": MEM_TOTAL, "perftest": True, "sudo": True,
        "cache": {"path": "/home/nvidia/.cache/huggingface", "free": 4 * 10**12, "held": {}},
        "gpus": [{"name": "NVIDIA GB10", "uuid": "GPU-0", "driver": "580.95.05"}],
        "docker": {"version": "28.5.2", "runtimes": ["nvidia", "runc"]},
        "links": [], "ibdev2netdev": "", "rdma": [], "infiniband_device": True, "listening": [], "host_key": "",
        "lease": None, "records": {},
    })  # fmt: skip
