"""Name in stack config → engine."""

from __future__ import annotations

from types import ModuleType

from components import catalog
from components.engines import sglang, trtllm, vllm
from components.settings import Settings

ENGINES: dict[str, ModuleType] = {"vllm": vllm, "sglang": sglang, "trtllm": trtllm}
"""Each has PORT, IMAGE, `plan(context)` and `api_key_file(key)`."""


def engine(settings: Settings) -> ModuleType:
    return ENGINES[settings.engine]


def api_port(settings: Settings) -> int:
    """TCP port of the API: as set, else the engine's usual one."""
    return int(settings.serving.port or engine(settings).PORT)


def image_name(settings: Settings) -> str:
    """As set, else what the model needs, else the engine's default."""
    entry = catalog.find(settings.model, settings.catalog)
    needed = entry.served(settings.engine).image if entry else None
    return str(settings.image.name or needed or engine(settings).IMAGE)
