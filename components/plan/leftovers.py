"""What this stack has on its Sparks and Pulumi's state does not know: an interrupted run's, a lost state's. Pure.

All of it goes: what is in the way just before the new one is made (scripts/clear.py), what nobody wants any more with
the room for the server (scripts/evict.py). `./spark adopt` leaves what is just as it is wanted. What carries another
stack's label, or none, is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.facts.spark import Container, NodeFacts, Thing
from components.plan.values import Identity
from components.problems import Problem, Severity


@dataclass(frozen=True)
class State:
    """What Pulumi's state knows, as it was saved last."""

    containers: frozenset[str]
    """Ids."""

    things: frozenset[str] = frozenset()
    """Ids of volumes (their names), and of Swarm's services, configs and secrets."""

    adopting: bool = False
    """What runs as it is wanted is taken over (programs/adopting.py)."""


Names = Mapping[str, frozenset[str]]
"""Node → names of all containers that are wanted there."""


def unknown(identity: Identity, spark: NodeFacts, state: State | None) -> list[Container]:
    """This stack's containers on a Spark that the state does not know; a Swarm's come and go with their services."""
    return [
        one
        for one in spark.docker.containers
        if state is not None
        and one.labels.get("dgx-spark.stack") == identity.full
        and not one.service
        and one.id not in state.containers
    ]


def unwanted(identity: Identity, facts: Mapping[str, NodeFacts], state: State | None, names: Names) -> set[str]:
    """Nodes with a container that the state does not know and nobody wants any more."""
    return {
        node
        for node, spark in facts.items()
        if any(one.name not in names[node] for one in unknown(identity, spark, state))
    }


def notes(identity: Identity, facts: Mapping[str, NodeFacts], state: State | None, names: Names) -> Iterator[Problem]:
    """What will become of what is left over."""
    anew = "will be removed and made anew"
    if state and state.adopting:
        anew = "will be taken over if it runs just as it is wanted, else removed and made anew"
    for node, spark in facts.items():
        found = sorted(one.name for one in unknown(identity, spark, state))
        again = [name for name in found if name in names[node]]
        gone = [name for name in found if name not in names[node]]
        for which, becomes in ((again, anew), (gone, "will be removed")):
            if which:
                left = f"left over from an interrupted run or a lost state: {', '.join(which)}, {becomes}"
                yield Problem(node, left, "", Severity.NOTE)


@dataclass(frozen=True)
class Wanted:
    """What else of Docker's the plan will have, by name."""

    services: frozenset[str]
    """Empty: the ranks are no Swarm services."""

    volumes: frozenset[str]


def beyond(spark: NodeFacts, state: State | None) -> list[Thing]:
    """What else of this stack there is that the state does not know."""
    return [one for one in spark.docker.things if state is not None and one.id not in state.things]


def strays(
    facts: Mapping[str, NodeFacts], state: State | None, wanted: Wanted
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Node → (kind, name) of what an `up` removes before all else.

    What is wanted again is removed just before it is made (scripts/clear.py), and a volume keeps what is in it. Of
    services that are wanted, the files stay for these: their names tell their content, and nothing wants another.
    """
    return {
        node: found
        for node, spark in facts.items()
        if (found := tuple((one.kind, one.name) for one in beyond(spark, state) if _stray(one, wanted)))
    }


def _stray(one: Thing, wanted: Wanted) -> bool:
    if one.kind == "service":
        return one.name not in wanted.services
    return one.kind != "volume" and not wanted.services


def _becomes(one: Thing, wanted: Wanted) -> str:
    if one.kind == "volume":
        used = one.name in wanted.volumes
        return "is used again with what is in it" if used else "stays with what is in it until ./spark destroy"
    return "will be removed" if _stray(one, wanted) else "will be removed and made anew"


def notes_beyond(facts: Mapping[str, NodeFacts], state: State | None, wanted: Wanted) -> Iterator[Problem]:
    """The same of these as `notes` of containers."""
    for node, spark in facts.items():
        found: dict[str, list[str]] = {}
        for one in beyond(spark, state):
            found.setdefault(_becomes(one, wanted), []).append(f"{one.kind} {one.name}")
        for becomes, names in found.items():
            left = f"left over from an interrupted run or a lost state: {', '.join(names)}, {becomes}"
            yield Problem(node, left, "", Severity.NOTE)


def strangers(
    identity: Identity, facts: Mapping[str, NodeFacts], names: Names, former: Mapping[str, str]
) -> Iterator[Problem]:
    """Containers of others under names that this stack's will have. `former`: node → stack that it is taken from."""
    for node, spark in facts.items():
        for one in spark.docker.containers:
            owner = one.labels.get("dgx-spark.stack", "")
            if one.name in names[node] and owner not in (identity.full, former.get(node, identity.full)):
                whose = f"the stack {owner}" if owner else "somebody else"
                yield Problem(
                    node,
                    f"has a container {one.name}, the name of one of this stack's, and it is {whose}'s",
                    f"on it: docker rename {one.name} OTHER, or remove it; this program touches no container of others",
                )
