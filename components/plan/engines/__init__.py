"""One module per engine behind one function: `plan(context) -> EnginePlan`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.catalog import Entry, Served, Task
from components.facts.fabric import NodeLink
from components.facts.hub import Model
from components.facts.spark import NodeFacts
from components.plan import known, models
from components.plan.values import Container, Draft, Identity, Image, Ray
from components.settings import Settings


@dataclass(frozen=True)
class Context:
    """What an engine decides from."""

    settings: Settings
    facts: Mapping[str, NodeFacts]
    links: Mapping[str, NodeLink]
    """Empty with one Spark."""

    model: Model
    entry: Entry | None
    """None: the model is not in the catalog."""

    identity: Identity
    port: int
    """TCP port of the API."""

    draft: Draft | None = None
    draft_model: Model | None = None
    """Of a draft that has weights of its own."""

    @property
    def api_key_file(self) -> str:
        """Where rank 0 finds the API's key; what is in it is the engine's business (`api_key_file`)."""
        # SGLang takes options from files of that name alone.
        return "/run/api-key.yaml" if self.settings.engine == "sglang" else "/run/api-key"

    @property
    def known(self) -> Served:
        """What the catalog says of the model for this engine."""
        return known.served(self.settings, self.entry)

    @property
    def task(self) -> Task:
        """What the model is for."""
        return models.task(self.entry, self.model)

    @property
    def served_name(self) -> str:
        """The model's name in the API."""
        last = self.model.repo.rsplit("/", 1)[-1]
        if self.settings.engine == "trtllm":
            # trtllm-serve has no option for it: it takes the directory's last name (engines/trtllm.py).
            return last
        return self.settings.serving.served_model_name or (last if self.model.path else self.model.repo)


@dataclass(frozen=True)
class EnginePlan:
    image: Image
    ray: Ray | None
    ranks: tuple[Container, ...]
    """The server's containers, the one that serves HTTP first."""

    environment: Mapping[str, Mapping[str, str]]
    """Node → communication environment of its rank."""

    swarm: bool = False
    """The ranks are Swarm services."""
