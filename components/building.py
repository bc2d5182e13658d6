"""One call that reaches the Sparks, plans and builds the cluster: for this project's own program and for others'."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pulumi

from components.problems import Refused
from components.remote import ask
from components.remote.reach import settled
from components.resources import ending
from components.settings import PROJECT, Settings, load

if TYPE_CHECKING:
    from components.resources.cluster import Cluster

DEFAULTS = {"engine": "vllm", "model": "gpt-oss-120b"}
"""As in Pulumi.yaml, which only this project's own program has."""


def converge(name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> Cluster:
    """The cluster that these settings mean, as `cluster.settings` and `cluster.plan` then tell. Raises Refused."""
    settings = settled(settings)
    # What is imported below takes half a second, in which the Sparks are reached and answer.
    if pulumi.runtime.is_dry_run():
        lines = ask.dial(settings)
    else:
        from components.remote import hold

        lines = hold.dial(settings)
        ending.BEFORE.add(hold.end)

    from components.plan.values import Identity
    from components.planning import planned

    threading.Thread(target=importlib.import_module, args=("components.resources.outputs",), daemon=True).start()
    identity = Identity(pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack())
    plan = planned(settings, identity, lines)

    from components.resources.cluster import Cluster

    made = Cluster(name, settings, plan, opts)
    made.tell()
    return made


def cluster(
    name: str,
    values: Mapping[str, Any],
    *,
    encrypted: Collection[str] | None = None,
    opts: pulumi.ResourceOptions | None = None,
) -> Cluster:
    """The cluster in a program of one's own. Raises pulumi.RunError, which is shown without a traceback.

    values      the keys of docs/configuration.md, whatever the project's name
    encrypted   those of which some part is a secret; None: not known, so a secret is taken as it comes
    """
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    raw = {f"{PROJECT}:{key}": text for key, text in {**DEFAULTS, **texts}.items()}
    secret = None if encrypted is None else {f"{PROJECT}:{key}" for key in encrypted}
    try:
        return converge(name, load(raw, encrypted=secret), opts)
    except Refused as refused:
        raise pulumi.RunError(str(refused)) from None
