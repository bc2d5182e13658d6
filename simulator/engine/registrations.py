"""Which steps a program's registrations mean, and doing them: check, diff, then same / update / replace / create.

Follows pkg/resource/deploy of pulumi/pulumi; replacements create first and delete at the end unless told otherwise.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from simulator.engine.deletions import Deletions
from simulator.engine.deployment import Deployment
from simulator.engine.providers import Diff, InitFailed, Old, Path, ProviderError, differences, differing
from simulator.engine.registry import implementation
from simulator.engine.state import STACK_TYPE, Resource
from simulator.engine.steps import NOT_COMPARED, Goal, Refused, Step, urn_of
from simulator.engine.values import UNKNOWN, Properties, Secret, is_secret, plain


class Registrations:
    """What the program asks for. Thread-safe: its registrations come in parallel."""

    def __init__(self, deployment: Deployment, deletions: Deletions, disabled_providers: Iterable[str] = ()) -> None:
        self._run, self._deletions = deployment, deletions
        self._disabled = set(disabled_providers)
        self._registered: set[str] = set()
        self._cascaded: set[str] = set()
        """URNs deleted in this run because something they depend on is deleted before its replacement."""

        self._defaults = threading.Lock()
        self._replacing = threading.Lock()

    def register(self, goal: Goal) -> Resource:
        """Carry out one registration; returns the resource as the program shall see it."""
        if not self._run.goes_on():
            raise Refused
        urn = urn_of(self._run.store.stack, self._run.store.project, goal.parent, goal.type, goal.name)
        with self._run.lock:
            if urn in self._registered:
                self._run.fail(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
            self._registered.add(urn)
            old = self._run.before.get(urn)
        if not goal.custom:
            return self._component(urn, goal, old)
        if goal.type.startswith("pulumi:providers:"):
            return self._provider_resource(urn, goal, old)
        return self._custom(urn, goal, old)

    def outputs(self, urn: str, outputs: Properties) -> None:
        """RegisterResourceOutputs of a component or the stack."""
        with self._run.lock:
            self._run.after[urn].outputs = outputs
            if self._run.after[urn].type == STACK_TYPE:
                self._run.stack_outputs = outputs
            self._run.save()

    def _component(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        made.outputs = old.outputs if old else {}
        return self._register_as_is(made, old)

    def _provider_resource(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        made.outputs = goal.inputs
        made.id = old.id if old else "" if self._run.dry_run else str(uuid.uuid4())
        diff = Diff(differences(plain(old.inputs), plain(made.inputs))) if old else NOT_COMPARED
        return self._register_as_is(made, old, diff)

    def _register_as_is(self, made: Resource, old: Resource | None, diff: Diff = NOT_COMPARED) -> Resource:
        """What is neither made nor taken away by a provider: components, and providers themselves.

        `diff`: what is said of an update; of a component's nothing.
        """
        if old is None:
            step = Step("create", made.urn, made.type, new=made)
        else:
            op = "update" if differing(old.inputs, made.inputs) else "same"
            step = Step(op, made.urn, made.type, diff, old=old, new=made)
        self._run.do(step, lambda: None)
        self._run.keep(made)
        return made

    def _custom(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        impl = implementation(goal.type)
        if not goal.provider:
            goal = replace(goal, provider=self._default_provider(goal.type, urn))
        goal = replace(goal, inputs=self._checked(goal))
        if old is None:
            return self._create(urn, goal, impl, "create")
        if old.pending_replacement:
            if urn in self._cascaded:
                # Without a reason: nobody compares it with what it was.
                new = self._resource(urn, goal, goal.inputs)
                self._run.events.step(Step("replace", urn, goal.type, old=old, new=new))
            return self._create(urn, goal, impl, "create-replacement")
        # A replacement is made of all that the program asks for.
        whole, goal = goal, ignoring(goal, old)
        # Another provider alone changes nothing: none of those known here says that its configuration would.
        diff = self._diff(old, goal)
        if diff.replaces:
            return self._replace(urn, whole, old, diff)
        if diff.detailed or old.init_errors:
            return self._update(urn, goal, old, diff)
        made = self._resource(urn, goal, goal.inputs)
        made.id, made.outputs = old.id, self._secreted(goal, plain(old.outputs))
        self._run.do(Step("same", urn, goal.type, old=old, new=made), lambda: None)
        self._run.keep(made)
        return made

    @staticmethod
    def _checked(goal: Goal) -> Properties:
        """Inputs with the type's defaults, secret where they were."""
        inputs = plain(goal.inputs)
        filled = implementation(goal.type).check(inputs)
        return {
            key: goal.inputs[key]
            if key in inputs and value is inputs[key]
            else Secret(value)
            if is_secret(goal.inputs.get(key))
            else value
            for key, value in filled.items()
        }

    def _diff(self, old: Resource, goal: Goal) -> Diff:
        diff = self._compared(old, goal.inputs)
        by = diff.delete_before_replace if goal.delete_before_replace is None else goal.delete_before_replace
        return replace(diff.forced([parsed(path) for path in goal.replace_on_changes]), delete_before_replace=by)

    @staticmethod
    def _compared(old: Resource, new: Properties) -> Diff:
        impl = implementation(old.type)
        seen = dict if impl.sees_secrets else plain
        return impl.diff(Old(old.id, seen(old.inputs), plain(old.outputs), old.init_errors), seen(new))

    def _create(self, urn: str, goal: Goal, impl: Any, op: str, diff: Diff | None = None) -> Resource:
        made = self._resource(urn, goal, goal.inputs)
        step = Step(op, urn, goal.type, diff or NOT_COMPARED, new=made)

        def act() -> None:
            self._run.before_create(urn, goal)
            try:
                made.id, outputs = impl.create(
                    plain(goal.inputs), self._run.config(goal.provider), self._run.logger(urn)
                )
            except InitFailed as error:
                made.id, made.outputs = error.id, self._secreted(goal, error.outputs)
                made.init_errors = [str(error)]
                self._run.keep(made)
                raise
            made.outputs = self._secreted(goal, outputs)

        self._run.do(step, act, pending="creating")
        if self._run.dry_run:
            self._run.before_create(urn, goal)
            made.outputs = {**goal.inputs, **dict.fromkeys(impl.computed, UNKNOWN)}
        self._run.keep(made)
        return made

    def _update(self, urn: str, goal: Goal, old: Resource, diff: Diff) -> Resource:
        impl = implementation(goal.type)
        made = self._resource(urn, goal, goal.inputs)
        made.id = old.id
        step = Step("update", urn, goal.type, diff, old=old, new=made)

        def act() -> None:
            before = Old(old.id, plain(old.inputs), plain(old.outputs))
            config = self._run.config(goal.provider)
            made.outputs = self._secreted(goal, impl.update(before, plain(goal.inputs), config, self._run.logger(urn)))

        self._run.do(step, act, pending="updating")
        if self._run.dry_run:
            made.outputs = {**old.outputs, **goal.inputs, **dict.fromkeys(impl.computed, UNKNOWN)}
        self._run.keep(made)
        return made

    def _replace(self, urn: str, goal: Goal, old: Resource, diff: Diff) -> Resource:
        impl = implementation(goal.type)
        replacing = Step("replace", urn, goal.type, diff, old=old, new=self._resource(urn, goal, goal.inputs))
        if diff.delete_before_replace:
            # Decided one at a time and done in parallel, as by Pulumi's step generator and executor: of two with a
            # dependent in common the first has it deleted, and the other is deleted without waiting for that.
            with self._replacing:
                cascade = self._cascade(old)
                self._cascaded.update(doomed.urn for doomed in cascade)
                self._deletions.going.update(doomed.urn for doomed in [*cascade, old])
            for doomed in [*cascade, old]:
                self._delete_for_replacement(doomed)
            self._run.events.step(replacing)
            return self._create(urn, goal, impl, "create-replacement", diff)
        made = self._create(urn, goal, impl, "create-replacement", diff)
        self._run.events.step(replacing)
        self._run.condemn(old)
        return made

    def _cascade(self, root: Resource) -> list[Resource]:
        """Transitive dependents that would be replaced too, last one first.

        Through property dependencies (an input that comes from `root` is unknown until `root` is back) and
        `deletedWith`. A plain dependsOn does not count.
        """
        doomed: dict[str, Resource] = {root.urn: root}
        with self._run.lock:
            candidates = self._run.former()
            handled = {*self._run.after, *self._cascaded}
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
            if self._compared(candidate, unknown).replaces:
                doomed[candidate.urn] = candidate
        del doomed[root.urn]
        return list(reversed(doomed.values()))

    def _delete_for_replacement(self, doomed: Resource) -> None:
        step = Step("delete-replaced", doomed.urn, doomed.type, old=doomed)
        self._run.do(step, lambda: self._deletions.by_provider(doomed), pending="deleting")
        with self._run.lock:
            self._run.before[doomed.urn] = replace(doomed, pending_replacement=True)
            self._run.save()

    def _default_provider(self, type_: str, wanted_by: str) -> str:
        package = type_.split(":")[0]
        if package in self._disabled:
            raise ProviderError(
                f"Default provider for '{package}' disabled. '{wanted_by}' must use an explicit provider."
            )
        name = f"default_{package}"
        with self._defaults:
            urn = urn_of(self._run.store.stack, self._run.store.project, "", f"pulumi:providers:{package}", name)
            if urn not in self._run.after:
                goal = Goal(f"pulumi:providers:{package}", name, True, "", {})
                self._provider_resource(urn, goal, self._run.before.get(urn))
            return f"{urn}::{self._run.after[urn].id}"

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


def parsed(path: str) -> Path:
    """`triggers[*]`, `init`: without quotes, which nothing here needs."""
    return tuple(re.findall(r"[^.\[\]]+", path))


def ignoring(goal: Goal, old: Resource) -> Goal:
    """`goal` with what it ignores as `old` has it."""
    inputs = goal.inputs
    for path in goal.ignore_changes:
        inputs = as_before(inputs, old.inputs, path.split("."))
    return replace(goal, inputs=inputs)


def as_before(new: Properties, old: Properties, path: Sequence[str]) -> Properties:
    """`new` with what is at `path` (names of properties) as `old` has it."""
    name, *rest = path
    if rest and isinstance(new.get(name), dict) and isinstance(old.get(name), dict):
        return {**new, name: as_before(new[name], old[name], rest)}
    others = {key: value for key, value in new.items() if key != name}
    return {**others, name: old[name]} if name in old else others
