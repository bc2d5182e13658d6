"""One preview, up, refresh or destroy: which steps a set of registrations means, and doing them.

Follows pkg/resource/deploy of pulumi/pulumi: check, diff, then same / update / replace / create per
registration; replacements create first and delete at the end unless told otherwise; deletions in
dependency order after the program has ended well, and none when anything failed.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.engine.crypter import Crypter
from simulator.engine.providers import Canceled, Diff, InitFailed, Old, ProviderError, differing
from simulator.engine.registry import implementation
from simulator.engine.state import STACK_TYPE, Resource, Store
from simulator.engine.values import UNKNOWN, Properties, Secret, has_unknown, is_secret, plain

PARALLEL = 16
"""Steps at once, as `pulumi up --parallel` has by default on small machines."""


class Refused(Exception):
    """The run goes no further; the reason has been shown."""


@dataclass
class Goal:
    """What a registration asks for."""

    type: str
    name: str
    custom: bool
    parent: str
    inputs: Properties
    provider: str = ""
    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    replace_on_changes: list[str] = field(default_factory=list)
    ignore_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    protect: bool = False
    retain_on_delete: bool = False
    deleted_with: str = ""


@dataclass(frozen=True)
class Step:
    """One line of a preview."""

    op: str
    """create, update, replace, create-replacement, delete-replaced, delete, same, refresh …"""

    urn: str
    type: str
    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    old: Properties = field(default_factory=dict, compare=False)
    new: Properties = field(default_factory=dict, compare=False)


class Events:
    """What the display hears of."""

    def step(self, step: Step) -> None: ...
    def done(self, step: Step, seconds: float) -> None: ...
    def failed(self, urn: str, reason: str) -> None: ...
    def log(self, urn: str, text: str) -> None: ...


def urn_of(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """`urn:pulumi:STACK::PROJECT::[PARENT_TYPES$]TYPE::NAME`; the stack's own type is never part of it."""
    parents = parent.split("::")[2] if parent else ""
    prefix = f"{parents}$" if parents and parents != STACK_TYPE else ""
    return f"urn:pulumi:{stack}::{project}::{prefix}{type_}::{name}"


class Deployment:
    """State before, state so far, and the rules in between. Thread-safe: registrations come in parallel."""

    def __init__(
        self,
        store: Store,
        crypter: Crypter,
        resources: list[Resource],
        events: Events,
        *,
        dry_run: bool,
        disabled_providers: Iterable[str] = (),
    ) -> None:
        self.store, self.crypter, self.events, self.dry_run = store, crypter, events, dry_run
        self._disabled = set(disabled_providers)
        self._before = {r.urn: r for r in resources if not r.delete}
        self._order = [r.urn for r in resources if not r.delete]
        self._condemned = [r for r in resources if r.delete]
        """Replaced in this or an earlier run; deleted at the end."""

        self._after: dict[str, Resource] = {}
        self._registered: set[str] = set()
        self._cascaded: set[str] = set()
        """URNs deleted in this run because something they depend on is deleted before its replacement."""

        self._going: set[str] = set()
        """URNs whose deletion is under way: what is deletedWith them needs none of its own."""

        self._lock = threading.RLock()
        self._defaults = threading.Lock()
        self._replacing = threading.Lock()
        self._slots = threading.Semaphore(PARALLEL)
        self._pending: list[dict[str, str]] = []
        self.failed = False
        self.canceled = False
        self.stack_outputs: Properties = {}
        self.old_stack_outputs: Properties = next((r.outputs for r in resources if r.type == STACK_TYPE), {})

    # -- registration --------------------------------------------------------------------------------

    def register(self, goal: Goal) -> Resource:
        """Carry out one registration; returns the resource as the program shall see it."""
        if self.failed or self.canceled:
            raise Refused
        urn = urn_of(self.store.stack, self.store.project, goal.parent, goal.type, goal.name)
        with self._lock:
            if urn in self._registered:
                self._fail(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
            self._registered.add(urn)
            old = self._before.get(urn)
        if not goal.custom:
            return self._component(urn, goal, old)
        if goal.type.startswith("pulumi:providers:"):
            return self._provider_resource(urn, goal, old)
        return self._custom(urn, goal, old)

    def outputs(self, urn: str, outputs: Properties) -> None:
        """RegisterResourceOutputs of a component or the stack."""
        with self._lock:
            self._after[urn].outputs = outputs
            if self._after[urn].type == STACK_TYPE:
                self.stack_outputs = outputs
            self._save()

    def _component(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        made.outputs = old.outputs if old else {}
        return self._register_as_is(made, old)

    def _provider_resource(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        made.outputs = goal.inputs
        made.id = old.id if old else "" if self.dry_run else str(uuid.uuid4())
        return self._register_as_is(made, old)

    def _register_as_is(self, made: Resource, old: Resource | None) -> Resource:
        """What no provider is asked about: components and providers themselves."""
        if old is None:
            step = Step("create", made.urn, made.type, new=made.inputs)
        else:
            changed = tuple(sorted(differing(plain(old.inputs), plain(made.inputs))))
            op = "update" if changed else "same"
            step = Step(op, made.urn, made.type, changed, old=old.inputs, new=made.inputs)
        self._do(step, lambda: None)
        self._keep(made)
        return made

    def _custom(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        impl = implementation(goal.type)
        if not goal.provider:
            goal = replace(goal, provider=self._default_provider(goal.type))
        goal = replace(goal, inputs=self._checked(goal))
        if old is not None:
            for path in goal.ignore_changes:
                goal.inputs = as_before(goal.inputs, old.inputs, path.split("."))
        if old is None:
            return self._create(urn, goal, impl, "create")
        if old.pending_replacement:
            if urn in self._cascaded:
                keys = self._diff(old, goal).changed
                self.events.step(Step("replace", urn, goal.type, tuple(sorted(keys)), old=old.inputs, new=goal.inputs))
            return self._create(urn, goal, impl, "create-replacement")
        diff = self._diff(old, goal)
        if old.provider.rsplit("::", 1)[0] != goal.provider.rsplit("::", 1)[0]:
            diff = Diff(diff.updates, diff.replaces | {"provider"}, diff.delete_before_replace)
        if diff.replaces:
            return self._replace(urn, goal, old, diff)
        if diff.updates or old.init_errors:
            return self._update(urn, goal, old, diff)
        self._do(Step("same", urn, goal.type), lambda: None)
        made = self._resource(urn, goal, goal.inputs)
        made.id, made.outputs = old.id, self._secreted(goal, plain(old.outputs))
        self._keep(made)
        return made

    @staticmethod
    def _checked(goal: Goal) -> Properties:
        """Inputs with the type's defaults, secret where they were."""
        filled = implementation(goal.type).check(plain(goal.inputs))
        return {key: Secret(value) if is_secret(goal.inputs.get(key)) else value for key, value in filled.items()}

    def _diff(self, old: Resource, goal: Goal) -> Diff:
        before = Old(old.id, plain(old.inputs), plain(old.outputs), old.init_errors)
        diff = implementation(goal.type).diff(before, plain(goal.inputs))
        forced = {path.split("[")[0].split(".")[0] for path in goal.replace_on_changes} & diff.changed
        by = diff.delete_before_replace if goal.delete_before_replace is None else goal.delete_before_replace
        return Diff(diff.updates - forced, diff.replaces | forced, by)

    def _create(self, urn: str, goal: Goal, impl: Any, op: str, diff: Diff | None = None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        keys = tuple(sorted(diff.changed)) if diff else ()
        step = Step(op, urn, goal.type, keys, tuple(sorted(diff.replaces)) if diff else (), new=goal.inputs)

        def act() -> None:
            try:
                made.id, outputs = impl.create(plain(goal.inputs), self._config(goal.provider), self._logger(urn))
            except InitFailed as error:
                made.id, made.outputs = error.id, self._secreted(goal, error.outputs)
                made.init_errors = [str(error)]
                self._keep(made)
                raise
            made.outputs = self._secreted(goal, outputs)

        self._do(step, act, pending="creating")
        if self.dry_run:
            made.outputs = {**goal.inputs, **dict.fromkeys(impl.computed, UNKNOWN)}
        self._keep(made)
        return made

    def _update(self, urn: str, goal: Goal, old: Resource, diff: Diff) -> Resource:
        impl = implementation(goal.type)
        made = self._resource(urn, goal, goal.inputs)
        made.id = old.id
        step = Step("update", urn, goal.type, tuple(sorted(diff.updates)), old=old.inputs, new=goal.inputs)

        def act() -> None:
            before = Old(old.id, plain(old.inputs), plain(old.outputs))
            config = self._config(goal.provider)
            made.outputs = self._secreted(goal, impl.update(before, plain(goal.inputs), config, self._logger(urn)))

        self._do(step, act, pending="updating")
        if self.dry_run:
            made.outputs = {**old.outputs, **goal.inputs, **dict.fromkeys(impl.computed, UNKNOWN)}
        self._keep(made)
        return made

    def _replace(self, urn: str, goal: Goal, old: Resource, diff: Diff) -> Resource:
        impl = implementation(goal.type)
        keys, why = tuple(sorted(diff.changed)), tuple(sorted(diff.replaces))
        replacing = Step("replace", urn, goal.type, keys, why, old=old.inputs, new=goal.inputs)
        if diff.delete_before_replace:
            # One at a time, as Pulumi's step generator: two may have dependents in common.
            with self._replacing:
                cascade = self._cascade(old)
                self._cascaded.update(doomed.urn for doomed in cascade)
                self._going.update(doomed.urn for doomed in [*cascade, old])
                for doomed in [*cascade, old]:
                    self._delete_for_replacement(doomed)
            self.events.step(replacing)
            return self._create(urn, goal, impl, "create-replacement", diff)
        made = self._create(urn, goal, impl, "create-replacement", diff)
        self.events.step(replacing)
        with self._lock:
            self._condemned.append(replace(old, delete=True))
            self._save()
        return made

    def _cascade(self, root: Resource) -> list[Resource]:
        """Transitive dependents that would be replaced too, last one first.

        Through property dependencies (an input that comes from `root` is unknown until `root` is back) and
        `deletedWith`. A plain dependsOn does not count.
        """
        doomed: dict[str, Resource] = {root.urn: root}
        with self._lock:
            candidates = [self._before[u] for u in self._order if u in self._before]
            handled = {*self._after, *self._cascaded}
        for candidate in candidates:
            if candidate.urn in doomed or candidate.urn in handled or not candidate.custom or candidate.is_provider:
                continue
            if candidate.deleted_with in doomed:
                doomed[candidate.urn] = candidate
                continue
            unknown = dict(candidate.inputs)
            for name, urns in candidate.property_dependencies.items():
                if set(urns) & set(doomed):
                    unknown[name] = UNKNOWN
            if not any(value is UNKNOWN for value in unknown.values()):
                continue
            before = Old(candidate.id, plain(candidate.inputs), plain(candidate.outputs))
            diff = implementation(candidate.type).diff(before, plain(unknown))
            if diff.replaces:
                doomed[candidate.urn] = candidate
        del doomed[root.urn]
        return list(reversed(doomed.values()))

    def _delete_for_replacement(self, doomed: Resource) -> None:
        step = Step("delete-replaced", doomed.urn, doomed.type)
        self._do(step, lambda: self._provider_delete(doomed), pending="deleting")
        with self._lock:
            if self.dry_run:
                self._before[doomed.urn] = replace(doomed, pending_replacement=True)
                return
            self._before[doomed.urn] = replace(doomed, pending_replacement=True, id="")
            self._save()

    def _default_provider(self, type_: str) -> str:
        package = type_.split(":")[0]
        if package in self._disabled:
            raise ProviderError(f"Default provider for '{package}' disabled. '{type_}' must use an explicit provider.")
        name = f"default_{package}"
        with self._defaults:
            urn = urn_of(self.store.stack, self.store.project, "", f"pulumi:providers:{package}", name)
            if urn not in self._after:
                goal = Goal(f"pulumi:providers:{package}", name, True, "", {})
                self._provider_resource(urn, goal, self._before.get(urn))
            return f"{urn}::{self._after[urn].id}"

    # -- the end -------------------------------------------------------------------------------------

    def finish(self) -> None:
        """What the program no longer registers goes, and what was replaced; not after a failure."""
        if self.failed or self.canceled:
            return
        leftover = [self._before[u] for u in self._order if u in self._before and u not in self._after]
        self.delete_all([*leftover, *self._condemned])

    def delete_all(self, doomed: list[Resource]) -> None:
        """In batches: what nothing else that is doomed depends on goes first."""
        self._going.update(resource.urn for resource in doomed)
        for batch in antichains(doomed):
            problems: list[BaseException] = []
            threads = [threading.Thread(target=self._delete, args=(resource, problems)) for resource in batch]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if problems or self.canceled:
                raise Refused

    def _delete(self, doomed: Resource, problems: list[BaseException]) -> None:
        op = "delete-replaced" if doomed.delete else "delete"
        try:
            if doomed.protect:
                self._fail(doomed.urn, f"resource {doomed.urn} cannot be deleted because it is protected")
            if doomed.pending_replacement:
                act: Callable[[], None] = lambda: None  # noqa: E731 - it is deleted already
            else:
                act = lambda: self._provider_delete(doomed)  # noqa: E731
            self._do(Step(op, doomed.urn, doomed.type, old=doomed.inputs), act, pending="deleting")
        except Refused as error:
            problems.append(error)
            return
        with self._lock:
            if doomed.delete:
                self._condemned = [r for r in self._condemned if r is not doomed]
            else:
                self._before.pop(doomed.urn, None)
            self._save()

    def _provider_delete(self, doomed: Resource) -> None:
        if not doomed.custom or doomed.is_provider or doomed.retain_on_delete or doomed.deleted_with in self._going:
            return
        old = Old(doomed.id, plain(doomed.inputs), plain(doomed.outputs))
        implementation(doomed.type).delete(old, self._config(doomed.provider), self._logger(doomed.urn))

    def refresh(self) -> None:
        """Look at what can be looked at; forget what is gone."""
        resources = [self._before[u] for u in self._order if self._before[u].custom and not self._before[u].is_provider]
        looked = [r for r in resources if not r.pending_replacement]
        threads = [threading.Thread(target=self._refresh_one, args=(resource,)) for resource in looked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failed:
            raise Refused
        self._save()

    def _refresh_one(self, resource: Resource) -> None:
        old = Old(resource.id, plain(resource.inputs), plain(resource.outputs))
        try:
            with self._slots:
                found = implementation(resource.type).read(old, self._config(resource.provider))
        except ProviderError as error:
            self.failed = True
            self.events.failed(resource.urn, str(error))
            return
        with self._lock:
            if found is None:
                del self._before[resource.urn]
                self._order.remove(resource.urn)
                self.events.step(Step("refresh-gone", resource.urn, resource.type))
            elif found != old.outputs:
                changed = tuple(sorted(k for k in {*found, *old.outputs} if found.get(k) != old.outputs.get(k)))
                secret = {key for key, value in resource.outputs.items() if is_secret(value)}
                outputs = {key: Secret(value) if key in secret else value for key, value in found.items()}
                self._before[resource.urn] = replace(resource, outputs=outputs)
                self.events.step(Step("refresh", resource.urn, resource.type, changed, old=old.outputs, new=found))

    # -- helpers -------------------------------------------------------------------------------------

    def _resource(self, urn: str, goal: Goal, inputs: Properties) -> Resource:
        return Resource(
            urn=urn,
            type=goal.type,
            custom=goal.custom,
            inputs=inputs,
            parent=goal.parent,
            provider=goal.provider,
            dependencies=sorted(goal.dependencies),
            property_dependencies=goal.property_dependencies,
            protect=goal.protect,
            retain_on_delete=goal.retain_on_delete,
            deleted_with=goal.deleted_with,
            additional_secret_outputs=goal.additional_secret_outputs,
        )

    @staticmethod
    def _secreted(goal: Goal, outputs: Properties) -> Properties:
        """Outputs are secret when listed so, or when the input of the same name is."""
        hidden = set(goal.additional_secret_outputs) | {k for k, v in goal.inputs.items() if is_secret(v)}
        return {key: Secret(value) if key in hidden else value for key, value in outputs.items()}

    def _config(self, provider: str) -> Properties:
        urn = provider.rsplit("::", 1)[0]
        with self._lock:
            found = self._after.get(urn) or self._before.get(urn)
        inputs: Properties = plain(found.inputs) if found else {}
        return {key: _decoded(key, value) for key, value in inputs.items()}

    def _logger(self, urn: str) -> Callable[[str], None]:
        return lambda text: self.events.log(urn, text)

    def _do(self, step: Step, act: Callable[[], None], *, pending: str = "") -> None:
        """Show a step and, unless this is a preview, carry it out."""
        self.events.step(step)
        if self.dry_run or step.op == "same":
            return
        began = time.monotonic()
        operation = {"type": pending, "urn": step.urn}
        try:
            with self._slots:
                if self.failed or self.canceled:
                    raise Refused
                if pending:
                    self._note(operation)
                act()
        except Canceled:
            raise Refused from None
        except ProviderError as error:
            self._fail(step.urn, str(error))
        finally:
            if pending:
                self._unnote(operation)
        self.events.done(step, time.monotonic() - began)

    def _note(self, operation: dict[str, str]) -> None:
        with self._lock:
            self._pending.append(operation)
            self._save()

    def _unnote(self, operation: dict[str, str]) -> None:
        with self._lock:
            if operation in self._pending:
                self._pending.remove(operation)
            self._save()

    def _fail(self, urn: str, reason: str) -> None:
        self.failed = True
        self.events.failed(urn, reason)
        raise Refused

    def _keep(self, resource: Resource) -> None:
        with self._lock:
            self._after[resource.urn] = resource
            self._save()

    def _save(self) -> None:
        if self.dry_run:
            return
        with self._lock:
            rest = [self._before[u] for u in self._order if u in self._before and u not in self._after]
            self.store.save([*self._after.values(), *rest, *self._condemned], self.crypter, self._pending)


def _decoded(key: str, value: Any) -> Any:
    """Provider inputs that are no strings travel as JSON text."""
    if isinstance(value, str) and value[:1] in "[{" and not has_unknown(value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


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


def as_before(new: Properties, old: Properties, path: Sequence[str]) -> Properties:
    """`new` with what is at `path` (names of properties) as `old` has it."""
    name, *rest = path
    if rest and isinstance(new.get(name), dict) and isinstance(old.get(name), dict):
        return {**new, name: as_before(new[name], old[name], rest)}
    others = {key: value for key, value in new.items() if key != name}
    return {**others, name: old[name]} if name in old else others
