"""What is known of each model beside its own config.json: how to serve it on Sparks, with sources."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).parent / "models.yaml"


class Parsers(BaseModel):
    """One engine's names for a model's output format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning_parser: str | None = None
    tool_call_parser: str | None = None


class Trtllm(Parsers):
    """TensorRT-LLM's own settings for a model."""

    max_num_tokens: int | None = None
    max_batch_size: int | None = None
    kv_cache_fraction: float | None = None
    """Of the memory that is free after the weights."""

    backend: str | None = None


class Entry(BaseModel):
    """One model. None: nothing to say; the engine's own default holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Hugging Face repository."""

    name: str
    """Short name for `pulumi config set model`."""

    gated: bool = False
    trust_remote_code: bool = False
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    vllm: Parsers = Parsers()
    sglang: Parsers = Parsers()
    trtllm: Trtllm = Trtllm()
    source: str
    """Where the settings come from."""


@cache
def entries() -> tuple[Entry, ...]:
    raw: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["models"]
    return tuple(Entry.model_validate(item) for item in raw)


def find(model: str) -> Entry | None:
    """By repository or short name; None: not in the catalog."""
    return next((entry for entry in entries() if model in (entry.id, entry.name)), None)
