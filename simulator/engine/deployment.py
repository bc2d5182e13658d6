"""One run's state: what was before, what is so far, and a step carried out on it.

Which steps a run means is decided in registrations.py, deletions.py and refresh.py, after pkg/resource/deploy of
pulumi/pulumi.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.engine.crypter import Crypter
from simulator.engine.providers import Canceled, ProviderError
from simulator.engine.state import STACK_TYPE, Resource, Store
from simulator.engine.steps import Events, Goal, Refused, Step
from simulator.engine.values import Properties, has_unknown, plain

PARALLEL = 16
"""Steps at once, as `pulumi up --parallel` has by default on small machines."""


class Deployment:
    """Thread-safe: registrations come in parallel."""

    def __init__(
        self, store: Store, crypter: Crypter, resources: list[Resource], events: Events, *, dry_run: bool
    ) -> None:
        self.store, self.crypter, self.events, self.dry_run = store, crypter, events, dry_run
        self.before = {r.urn: r for r in resources if not r.delete}
        self._order = [r.urn for r in resources if not r.delete]
        self.condemned = [r for r in resources if r.delete]
        """Replaced in this or an earlier run; deleted at the end."""

        self.after: dict[str, Resource] = {}
        self.lock = threading.RLock()
        self.slots = threading.Semaphore(PARALLEL)
        self._pending: list[dict[str, str]] = []
        self.failed = False
        self.canceled = False
        self.tolerant = False
        """A failure ends nothing but itself (--continue-on-error)."""

        self.before_create: Callable[[str, Goal], None] = lambda urn, goal: None
        """Calls the hooks of a registration."""

        self.stack_outputs: Properties = {}
        self.old_stack_outputs: Properties = next((r.outputs for r in resources if r.type == STACK_TYPE), {})

    def former(self) -> list[Resource]:
        """What was before and is still there, in the order in which it was made."""
        return [self.before[urn] for urn in self._order if urn in self.before]

    def rest(self) -> list[Resource]:
        """What was before, and has not been registered so far."""
        return [resource for resource in self.former() if resource.urn not in self.after]

    def saved_outputs(self) -> dict[str, Any]:
        """What pulumi:pulumi:readStackResourceOutputs answers: URN → type and outputs, as the state was saved last."""
        saved = [resource for resource in self.store.load(self.crypter) if not resource.delete]
        return {r.urn: {"type": r.type, "outputs": r.outputs} for r in saved}

    def goes_on(self) -> bool:
        return not (self.failed or self.canceled)

    def settle(self) -> None:
        """Wait for what is running; after a failure nothing new begins."""
        for _ in range(PARALLEL):
            self.slots.acquire()
        self.slots.release(PARALLEL)

    def do(self, step: Step, act: Callable[[], None], *, pending: str = "") -> None:
        """Show a step and, unless this is a preview, carry it out."""
        self.events.step(step)
        if self.dry_run or step.op == "same":
            return
        began = time.monotonic()
        operation = {"type": pending, "urn": step.urn}
        try:
            with self.slots:
                if not self.goes_on():
                    raise Refused
                if pending:
                    self._note(operation)
                act()
        except Canceled:
            raise Refused from None
        except ProviderError as error:
            self.fail(step.urn, str(error))
        finally:
            if pending:
                self._unnote(operation)
        self.events.done(step, time.monotonic() - began)

    def _note(self, operation: dict[str, str]) -> None:
        with self.lock:
            self._pending.append(operation)
            self.save()

    def _unnote(self, operation: dict[str, str]) -> None:
        with self.lock:
            if operation in self._pending:
                self._pending.remove(operation)
            self.save()

    def fail(self, urn: str, reason: str) -> None:
        self.failed = self.failed or not self.tolerant
        self.events.failed(urn, reason)
        raise Refused

    def keep(self, resource: Resource) -> None:
        """It is, as of now, what this resource is."""
        with self.lock:
            self.after[resource.urn] = resource
            self.save()

    def condemn(self, resource: Resource) -> None:
        """It has been replaced, and goes at the end."""
        with self.lock:
            self.condemned.append(replace(resource, delete=True))
            self.save()

    def was_deleted(self, doomed: Resource) -> None:
        """Forget it, whether it was replaced or no longer asked for."""
        with self.lock:
            if doomed.delete:
                self.condemned = [resource for resource in self.condemned if resource is not doomed]
            else:
                self.before.pop(doomed.urn, None)
            self.save()

    def save(self) -> None:
        if self.dry_run:
            return
        with self.lock:
            self.store.save([*self.after.values(), *self.rest(), *self.condemned], self.crypter, self._pending)

    def config(self, provider: str) -> Properties:
        """A provider's inputs, of this run or of the one before."""
        urn = provider.rsplit("::", 1)[0]
        with self.lock:
            found = self.after.get(urn) or self.before.get(urn)
        inputs: Properties = plain(found.inputs) if found else {}
        return {key: _decoded(key, value) for key, value in inputs.items()}

    def logger(self, urn: str) -> Callable[[str], None]:
        return lambda text: self.events.log(urn, text)


def _decoded(key: str, value: Any) -> Any:
    """Provider inputs that are no strings travel as JSON text."""
    if isinstance(value, str) and value[:1] in "[{" and not has_unknown(value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
