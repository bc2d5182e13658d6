"""What a run takes away: what the program no longer asks for, and what was replaced."""

from __future__ import annotations

import threading

from simulator.engine.deployment import Deployment
from simulator.engine.providers import Old
from simulator.engine.registry import implementation
from simulator.engine.state import Resource
from simulator.engine.steps import Refused, Step
from simulator.engine.values import plain


class Deletions:
    """Dependents before what they depend on, after the program has ended well, and none when anything failed."""

    def __init__(self, deployment: Deployment, *, continue_on_error: bool = False) -> None:
        self._run = deployment
        deployment.tolerant = continue_on_error
        self.going: set[str] = set()
        """URNs whose deletion is under way: what is deletedWith them needs none of its own."""

    def finish(self) -> None:
        """What the program no longer registers goes, and what was replaced; not after a failure."""
        if self._run.goes_on():
            self._all([*self._run.rest(), *self._run.condemned])

    def _all(self, doomed: list[Resource]) -> None:
        """In batches: what nothing else that is doomed depends on goes first; never what something that stays needs."""
        self.going.update(resource.urn for resource in doomed)
        stay: list[Resource] = []
        for batch in antichains(doomed):
            held = {urn for resource in stay for urn in needs(resource, doomed)}
            stay += [resource for resource in batch if resource.urn in held]
            threads = [
                threading.Thread(target=self._one, args=(resource, stay))
                for resource in batch
                if resource.urn not in held
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if not self._run.goes_on():
                raise Refused
        if stay:
            self._run.failed = True
            raise Refused

    def _one(self, doomed: Resource, stay: list[Resource]) -> None:
        """`stay`: takes it where it can't be deleted."""
        op = "delete-replaced" if doomed.delete else "delete"
        if doomed.pending_replacement:
            # Deleted before its replacement, which this program does without: there is nothing to be shown.
            self._run.was_deleted(doomed)
            return
        try:
            if doomed.protect:
                self._run.fail(doomed.urn, f"resource {doomed.urn} cannot be deleted because it is protected")
            step = Step(op, doomed.urn, doomed.type, old=doomed)
            self._run.do(step, lambda: self.by_provider(doomed), pending="deleting")
        except Refused:
            stay.append(doomed)
            return
        self._run.was_deleted(doomed)

    def by_provider(self, doomed: Resource) -> None:
        if not doomed.custom or doomed.is_provider or doomed.retain_on_delete or doomed.deleted_with in self.going:
            return
        old = Old(doomed.id, plain(doomed.inputs), plain(doomed.outputs))
        implementation(doomed.type).delete(old, self._run.config(doomed.provider), self._run.logger(doomed.urn))


def needs(resource: Resource, doomed: list[Resource]) -> set[str]:
    """URNs of those of `doomed` that it depends on; of a component, what was made in it."""
    by_urn = {other.urn: other for other in doomed}
    named = {resource.parent, resource.provider.rsplit("::", 1)[0], resource.deleted_with, *resource.dependencies}
    for urns in resource.property_dependencies.values():
        named.update(urns)
    components = {urn for urn in named & set(by_urn) if not by_urn[urn].custom} - {resource.parent}
    named.update(other.urn for other in doomed if other.parent in components)
    return (named & set(by_urn)) - {resource.urn}


def antichains(doomed: list[Resource]) -> list[list[Resource]]:
    """Batches for deletion: dependents before what they depend on."""
    batches: list[list[Resource]] = []
    rest = list(doomed)
    while rest:
        wanted = {urn for resource in rest for urn in needs(resource, doomed)}
        batch = [resource for resource in rest if resource.urn not in wanted] or rest
        batches.append(batch)
        rest = [resource for resource in rest if resource not in batch]
    return batches
