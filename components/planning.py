"""Settings → facts → plan: asks all Sparks and, where needed, the model hub, then decides. The only reads there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pulumi
from pulumi.runtime.sync_await import _sync_await

from components.facts.hub import Model
from components.facts.spark import NodeFacts, parse
from components.plan import decide, known, models, orders, steps
from components.plan.leftovers import State
from components.plan.values import Identity, Plan
from components.problems import Problem, Refused
from components.programs import adopting, session
from components.remote import ask, clear, hold, reach, ssh
from components.scripts.contracts import Clearing
from components.settings import Settings

T = TypeVar("T")

OUR_DOCKERFILE = Path(__file__).parent / "images" / "vllm.Dockerfile"


def planned(settings: Settings, identity: Identity, lines: ask.Lines) -> Plan:
    """Ask the Sparks and decide; for an `up`, with the Sparks held against others of the stack. Raises Refused.

    settings   with what ssh_config says (reach.settled)
    lines      to all of its Sparks (ask.dial; for an `up` hold.dial)
    """
    keys = reach.keys(settings)
    # The state is read while the Sparks are asked: a passphrase alone takes a third of a second.
    known_to_pulumi = asyncio.ensure_future(outputs_in_state(identity))
    found = facts(settings, identity, lines)
    decide.before_model(settings, found, identity)
    head = found[settings.head.name]
    served = model(settings, head)
    plan = decide.decide(
        settings,
        found,
        served,
        identity,
        fresh=steps.new_generation(found),
        dockerfile=dockerfile(settings),
        staged=staged(settings, head),
        draft=draft(settings, head, served),
        state=state(known_to_pulumi),
    )
    if not pulumi.runtime.is_dry_run():
        taken = hold.hold(lines, identity.full)
        if taken:
            raise Refused(taken)
        remove_strays(settings, identity, plan)
    return replace(plan, ways=reach.ways(settings, keys))


def remove_strays(settings: Settings, identity: Identity, plan: Plan) -> None:
    """Remove what no state knows and nobody wants. Raises Refused where it stays.

    Here and by no resource: there is nothing to keep of it, and the next preview shall show no change.
    """
    for node in settings.nodes:
        for kind, name in plan.strays.get(node.name, ()):
            inputs = Clearing(stack=identity.full, kind=kind, name=name, wanted=None)
            try:
                clear.clear(ssh.target(node, settings.ssh), inputs)
            except session.Failed as failed:
                fix = f"on it: docker {kind} rm {name}"
                raise Refused([Problem(node.name, f"{kind} {name} is left over, and stays: {failed}", fix)]) from None


def facts(settings: Settings, identity: Identity, lines: ask.Lines) -> dict[str, NodeFacts]:
    """Facts of every Spark. Raises Refused naming each one that can't be asked."""
    # In a thread, so that what else was begun goes on meanwhile.
    questions = orders.probe(settings, identity.full)
    asking = asyncio.to_thread(ask.ask, lines, questions, stay=not pulumi.runtime.is_dry_run())
    found, problems = parse(waited(asking), settings)
    if problems:
        raise Refused(problems)
    return found


def waited(for_: Awaitable[T]) -> T:
    """As the SDK's own synchronous invokes wait; it has no public name for that."""
    result: T = _sync_await(for_)
    return result


CONTAINER = "docker:index/container:Container"
THINGS = tuple(f"docker:index/{kind}" for kind in ("volume:Volume", "service:Service", "serviceConfig:ServiceConfig",
                                                   "secret:Secret"))  # fmt: skip


async def outputs_in_state(identity: Identity) -> dict[str, Any]:
    """URN → type and outputs of what Pulumi's state holds, by the function with which stacks read each other's
    resources: asked for itself, the engine answers with the state as it was saved last.

    Source: pulumi, pkg/resource/deploy/builtins.go; seen to work with 3.260.
    """
    answer = await pulumi.runtime.invoke_async("pulumi:pulumi:readStackResourceOutputs", {"stackName": identity.full})
    found: dict[str, Any] = answer["outputs"]
    return found


def state(reading: Awaitable[dict[str, Any]]) -> State | None:
    """What Pulumi's state knows of what is in Docker; None where this Pulumi does not tell."""
    try:
        found = waited(reading)
    except Exception as error:  # noqa: BLE001 - the SDK raises Exception itself
        pulumi.log.debug(f"the state can't be read: {error}")
        return None

    def ids(*types: str) -> frozenset[str]:
        outputs = (one["outputs"] for one in found.values() if one["type"] in types)
        return frozenset(one["id"] for one in outputs if "id" in one)

    return State(ids(CONTAINER), things=ids(*THINGS), adopting=adopting.folder() is not None)


def model(settings: Settings, head: NodeFacts) -> Model:
    """The model, from the head itself where it has it, else from the hub."""
    found = models.on_head(settings, head)
    if found:
        return found
    repo = models.repository(settings)
    return _look_up(settings, repo, models.pinned_revision(head, repo, settings.weights.revision))


def staged(settings: Settings, head: NodeFacts) -> tuple[Model, ...]:
    """The models to have in place beside it (weights.stage)."""
    found = []
    for repo in known.stored(settings):
        kind = models.staged_kind(repo)
        recorded = models.recorded_model(head, repo, None, kind)
        found.append(recorded or _look_up(settings, repo, models.pinned_revision(head, repo, None, kind)))
    return tuple(found)


def draft(settings: Settings, head: NodeFacts, served: Model) -> Model | None:
    """What guesses tokens for it, where that has weights of its own."""
    wanted = decide.guesses(settings, served)
    if wanted is None or not wanted.repo:
        return None
    recorded = models.recorded_model(head, wanted.repo, wanted.revision, known.KIND)
    if recorded:
        return recorded
    if settings.weights.offline:
        return known.present(settings, head, wanted.repo)
    pinned = models.pinned_revision(head, wanted.repo, wanted.revision, known.KIND)
    return _look_up(settings, wanted.repo, pinned)


def _look_up(settings: Settings, repo: str, revision: str | None) -> Model:
    # Its client takes half a second to import, and an unchanged stack asks no hub.
    from components.remote import hub

    return hub.look_up(settings.weights.endpoint, repo, revision, settings.hf_token.get_secret_value())


def dockerfile(settings: Settings) -> str:
    """Text of the Dockerfile that the image is built from; '' where none is."""
    if settings.image.source != "build":
        return ""
    path = Path(settings.image.dockerfile).expanduser() if settings.image.dockerfile else OUR_DOCKERFILE
    try:
        return path.read_text()
    except OSError as error:
        raise Refused(
            [Problem("image.dockerfile", f"{path}: {error.strerror}", "a file on the machine that runs Pulumi")]
        ) from None
