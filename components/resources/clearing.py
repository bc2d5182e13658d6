"""The names that a stack's things will have on a Spark are free when Pulumi makes them.

Pulumi knows what it has made by its state alone. An interrupted run, a lost state or one of yesterday leave things on a
Spark that it does not know, and whose names it wants again: "name already in use", for ever. So whatever Docker is to
keep under a name is preceded by a look on the Spark, at the moment of its making (a resource hook): a thing of that
name and this stack's label can only be such a leftover, since what the state knows has been deleted by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pulumi import ResourceHook, ResourceHookArgs, ResourceHookBinding

from components.programs import session

KINDS = {
    "docker:index/container:Container": "container",
    "docker:index/service:Service": "service",
    "docker:index/serviceConfig:ServiceConfig": "config",
    "docker:index/secret:Secret": "secret",
}
"""A volume is not among them: Docker makes none where one of that name is, and its content is kept so."""

LIMIT = 180
"""Seconds; a container has 30 to end."""


def hooks(name: str, ssh: Mapping[str, Any], stack: str) -> ResourceHookBinding:
    """For everything of Docker's on one Spark. `ssh`: the fields of openssh.Target; `stack`: ORG/PROJECT/STACK."""

    async def before_create(args: ResourceHookArgs) -> None:
        inputs = {"stack": stack, "kind": KINDS[args.type], "name": (args.new_inputs or {})["name"]}
        # The program's other registrations go on meanwhile.
        await asyncio.to_thread(session.run, ssh, "clear.py", inputs, limit=LIMIT)

    return ResourceHookBinding(before_create=[ResourceHook(name, before_create)])
