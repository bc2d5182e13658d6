"""One module per engine behind one function: `plan(context) -> EnginePlan`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.catalog import Entry
from components.detection import NodeLink
from components.facts import NodeFacts
from components.hub import Model
from components.plan import Container, Identity, Image, Ray, Readiness
from components.settings import Settings


@dataclass(frozen=True)
class Context:
    """What an engine decides from."""

    settings: Settings
    facts: Mapping[str, NodeFacts]
    links: Mapping[str, NodeLink]
    model: Model
    entry: Entry | None
    identity: Identity


@dataclass(frozen=True)
class EnginePlan:
    image: Image
    ray: Ray | None
    server: Container
    readiness: Readiness
    served_name: str
    environment: Mapping[str, Mapping[str, str]]
    """Node → communication environment of its rank."""
