"""Name in stack config → engine."""

from __future__ import annotations

from types import ModuleType

from components import catalog
from components.plan import known
from components.plan.engines import sglang, trtllm, vllm
from components.plan.engines.common import chosen_image
from components.settings import Settings

ENGINES: dict[str, ModuleType] = {"vllm": vllm, "sglang": sglang, "trtllm": trtllm}
"""Each has PORT, IMAGE, `plan(context)` and `api_key_file(key)`."""


def engine(settings: Settings) -> ModuleType:
    return ENGINES[settings.engine]


def api_port(settings: Settings) -> int:
    """TCP port of the API: as set, else the engine's usual one."""
    return int(settings.serving.port or engine(settings).PORT)


def image_name(settings: Settings) -> str:
    found = known.served(settings, catalog.find(settings.model, settings.catalog))
    return chosen_image(settings, found, engine(settings).IMAGE)
