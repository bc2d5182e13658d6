"""What the programs on this machine are given: which Sparks to reach how, and what to ask there. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.plan import known, models
from components.plan.checks import on_swarm
from components.plan.engines.registry import image_name
from components.plan.values import Qualification, Readiness
from components.remote import parcel, ssh
from components.scripts.contracts import Probe, Record, Watch
from components.settings import Node, Settings


def probe(settings: Settings, stack: str) -> dict[str, str]:
    """Spark → what its probe is asked (remote/ask.py). `stack`: ORG/PROJECT/STACK."""
    return {
        node.name: parcel.asking(
            "probe.py",
            Probe(
                stack=stack,
                cache=node.cache or settings.weights.cache,
                repos=[models.repository(settings), *drafts(settings), *known.stored(settings)],
                look=models.look(settings),
                draft=_look_for_draft(settings),
                encodings=[models.encoding_file(name) for name in settings.weights.encodings]
                if settings.weights.offline
                else [],
                images=[image_name(settings)],
                sudo=on_swarm(settings),
            ),
        )
        for node in settings.nodes
    }


def drafts(settings: Settings) -> list[str]:
    """Repositories of what guesses: none, or one."""
    draft = known.draft(settings)
    return [draft.repo] if draft and draft.repo else []


def _look_for_draft(settings: Settings) -> dict[str, str | None] | None:
    draft = known.draft(settings)
    if not (draft and draft.repo and settings.weights.offline):
        return None
    return {"repo": draft.repo, "revision": draft.revision}


def qualification(settings: Settings, wanted: Qualification) -> dict[str, Any]:
    """For programs/qualification.py."""
    reached = {node.name: asdict(ssh.target(node, settings.ssh)) for node in settings.nodes}
    return {
        "sparks": [{"ssh": reached[name], "inputs": inputs} for name, inputs in wanted.inputs.items()],
        "seconds": wanted.seconds,
        "minimum": dict(wanted.minimum),
    }


LAST_LINES = 40
"""Of each log, while its container runs: what programs/readiness.py shows of them when the endpoint fails."""


def readiness(settings: Settings, wanted: Readiness, stack: str, generation: str, key: Any) -> dict[str, Any]:
    """For programs/readiness.py.

    stack        ORG/PROJECT/STACK
    generation   what the record of the endpoint will say
    key          the API's, '' where it is open; may be a Pulumi output
    """

    def watch(node: Node) -> Watch:
        inputs = Watch(
            stack=stack,
            components=list(wanted.containers[node.name]),
            lines=LAST_LINES,
            several=len(settings.nodes) > 1,
        )
        if node is settings.head:
            inputs |= {
                "api": f"http://{settings.serving.local_host}:{wanted.port}/v1",
                "model": wanted.model,
                "key": key,
                "record": Record(stack=stack, kind="endpoint", spec="", generation=generation),
                "task": wanted.task,
                "template": wanted.template,
                "check": settings.serving.check_answer,
            }
        return inputs

    return {
        "stack": stack.rsplit("/", 1)[-1],
        "engine": settings.engine,
        "timeout": wanted.timeout,
        "rdma": settings.fabric.rdma,
        # TensorRT-LLM's ranks all speak through the head's.
        "ranks": [
            node.name
            for node in settings.nodes
            if len(settings.nodes) > 1
            and "server" in wanted.containers[node.name]
            and (node is settings.head or settings.engine != "trtllm")
        ],
        "watches": [{"ssh": asdict(ssh.target(node, settings.ssh)), "inputs": watch(node)} for node in settings.nodes],
    }
