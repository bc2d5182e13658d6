"""What has changed outside of Pulumi."""

from __future__ import annotations

import threading
from dataclasses import replace

from simulator.engine.deployment import Deployment
from simulator.engine.providers import Diff, Old, ProviderError, differences
from simulator.engine.registry import implementation
from simulator.engine.state import Resource
from simulator.engine.steps import Refused, Step
from simulator.engine.values import Properties, Secret, is_secret, plain


def refresh(run: Deployment) -> None:
    """Look at what can be looked at; forget what is gone."""
    for resource in run.former():
        run.events.step(Step("refresh", resource.urn, resource.type, old=resource))
    looked = [r for r in run.former() if r.custom and not r.is_provider and not r.pending_replacement]
    threads = [threading.Thread(target=_one, args=(run, resource)) for resource in looked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if run.failed:
        raise Refused
    run.save()


def _one(run: Deployment, resource: Resource) -> None:
    old = Old(resource.id, plain(resource.inputs), plain(resource.outputs))
    try:
        with run.slots:
            found = implementation(resource.type).read(old, run.config(resource.provider))
    except ProviderError as error:
        run.failed = True
        run.events.failed(resource.urn, str(error))
        return
    with run.lock:
        if found is None:
            del run.before[resource.urn]
            run.events.step(Step("gone", resource.urn, resource.type, old=resource))
        elif found != old.outputs:
            now = replace(resource, outputs=_as_secret(found, resource.outputs))
            run.before[resource.urn] = now
            diff = Diff(differences(old.outputs, found))
            run.events.step(Step("drifted", resource.urn, resource.type, diff, old=resource, new=now))


def _as_secret(found: Properties, before: Properties) -> Properties:
    secret = {key for key, value in before.items() if is_secret(value)}
    return {key: Secret(value) if key in secret else value for key, value in found.items()}
