"""The names that a stack's things will have on a Spark are free when Pulumi makes them.

Pulumi knows what it has made by its state alone. An interrupted run, a lost state or one of yesterday leave things on a
Spark that it does not know, and whose names it wants again: "name already in use", for ever. So whatever Docker is to
keep under a name is preceded by a look on the Spark, at the moment of its making (a resource hook): a thing of that
name and this stack's label can only be such a leftover, since what the state knows has been deleted by then. During
`./spark adopt` a container that is just what is wanted stays (programs/adopting.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pulumi import Output, ResourceHook, ResourceHookArgs, ResourceHookBinding

from components.programs import adopting
from components.remote import clear
from components.remote.openssh import Target
from components.scripts.contracts import Clearing

KINDS = {
    "docker:index/container:Container": "container",
    "docker:index/service:Service": "service",
    "docker:index/serviceConfig:ServiceConfig": "config",
    "docker:index/secret:Secret": "secret",
}
"""A volume is not among them: Docker makes none where one of that name is, and its content is kept so."""

THREADS = ThreadPoolExecutor(8, "clearing")
"""Not the event loop's: each of those may wait for a resource that Pulumi is making, whose hook is what waits here."""


def hooks(name: str, spark: Target, stack: str) -> ResourceHookBinding:
    """For everything of Docker's on one Spark. `stack`: ORG/PROJECT/STACK."""

    async def before_create(args: ResourceHookArgs) -> None:
        kind, given = KINDS[args.type], args.new_inputs or {}
        kept = adopting.folder() if kind == "container" else None
        wanted = json.loads(await _text(given)) if kept else None
        inputs = Clearing(stack=stack, kind=kind, name=given["name"], wanted=wanted)
        look = partial(clear.clear, spark, inputs)
        said = await asyncio.get_running_loop().run_in_executor(THREADS, look)
        if kept and said.strip():
            # A login shell may print something before.
            adopting.note(kept, spark.name, given["name"], json.loads(said.splitlines()[-1]))

    return ResourceHookBinding(before_create=[ResourceHook(name, before_create)])


async def _text(given: Mapping[str, Any]) -> str:
    """A resource's inputs as JSON, secrets included."""
    return str(await Output.json_dumps(dict(given)).future())
