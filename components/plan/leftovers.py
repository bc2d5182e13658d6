"""What this stack has on its Sparks and Pulumi's state does not know: an interrupted run's, a lost state's. Pure.

All of it goes: what is in the way just before the new one is made (scripts/clear.py), what nobody wants any more with
the room for the server (scripts/evict.py). What carries another stack's label, or none, is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.facts.spark import Container, NodeFacts
from components.plan.values import Identity
from components.problems import Problem, Severity


@dataclass(frozen=True)
class State:
    """What Pulumi's state knows, as it was saved last."""

    containers: frozenset[str]
    """Ids."""


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
    for node, spark in facts.items():
        found = sorted(one.name for one in unknown(identity, spark, state))
        again = [name for name in found if name in names[node]]
        gone = [name for name in found if name not in names[node]]
        for which, becomes in ((again, "will be removed and made anew"), (gone, "will be removed")):
            if which:
                left = f"left over from an interrupted run or a lost state: {', '.join(which)}, {becomes}"
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
