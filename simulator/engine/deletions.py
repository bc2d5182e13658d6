"""What a run takes away: what the program no longer asks for, and what was replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable

from simulator.engine.deployment import Deployment
from simulator.engine.providers import Old
from simulator.engine.registry import implementation
from simulator.engine.state import Resource
from simulator.engine.steps import Refused, Step
from simulator.engine.values import plain


class Deletions:
    """Dependents before what they depend on, after the program has ended well, and none when anything failed."""

    def __init__(self, deployment: Deployment) -> None:
        self._run = deployment
        self.going: set[str] = set()
        """URNs whose deletion is under way: what is deletedWith them needs none of its own."""

    def finish(self) -> None:
        """What the program no longer registers goes, and what was replaced; not after a failure."""
        if self._run.goes_on():
            self._all([*self._run.rest(), *self._run.condemned])

    def _all(self, doomed: list[Resource]) -> None:
        """In batches: what nothing else that is doomed depends on goes first."""
        self.going.update(resource.urn for resource in doomed)
        for batch in antichains(doomed):
            problems: list[BaseException] = []
            threads = [threading.Thread(target=self._one, args=(resource, problems)) for resource in batch]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if problems or self._run.canceled:
                raise Refused

    def _one(self, doomed: Resource, problems: list[BaseException]) -> None:
        op = "delete-replaced" if doomed.delete else "delete"
        # What a run before was to replace is deleted already.
        act: Callable[[], None] = (lambda: None) if doomed.pending_replacement else (lambda: self.by_provider(doomed))
        try:
            if doomed.protect:
                self._run.fail(doomed.urn, f"resource {doomed.urn} cannot be deleted because it is protected")
            self._run.do(Step(op, doomed.urn, doomed.type, old=doomed.inputs), act, pending="deleting")
        except Refused as error:
            problems.append(error)
            return
        self._run.was_deleted(doomed)

    def by_provider(self, doomed: Resource) -> None:
        if not doomed.custom or doomed.is_provider or doomed.retain_on_delete or doomed.deleted_with in self.going:
            return
        old = Old(doomed.id, plain(doomed.inputs), plain(doomed.outputs))
        implementation(doomed.type).delete(old, self._run.config(doomed.provider), self._run.logger(doomed.urn))


def antichains(doomed: list[Resource]) -> list[list[Resource]]:
    """Batches for deletion: dependents before what they depend on."""
    by_urn: dict[str, list[Resource]] = {}
    for resource in doomed:
        by_urn.setdefault(resource.urn, []).append(resource)
    children: dict[str, list[str]] = {}
    for resource in doomed:
        children.setdefault(resource.parent, []).append(resource.urn)

    def needs(resource: Resource) -> set[str]:
        named = {resource.parent, resource.provider.rsplit("::", 1)[0], resource.deleted_with, *resource.dependencies}
        for urns in resource.property_dependencies.values():
            named.update(urns)
        for component in [name for name in named if name in by_urn and not by_urn[name][0].custom]:
            if component != resource.parent:
                named.update(children.get(component, []))
        return (named & set(by_urn)) - {resource.urn}

    batches: list[list[Resource]] = []
    rest = list(doomed)
    while rest:
        wanted = {urn for resource in rest for urn in needs(resource)}
        batch = [resource for resource in rest if resource.urn not in wanted] or rest
        batches.append(batch)
        rest = [resource for resource in rest if resource not in batch]
    return batches
