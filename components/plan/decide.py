"""Settings and facts → Plan, or Refused with everything that stands against it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components import catalog
from components.facts import fabric
from components.facts.hub import Model
from components.facts.spark import NodeFacts
from components.facts.usable import unusable
from components.plan import beside, checks, host, known, leftovers, memory, models, steps
from components.plan.engines import Context, EnginePlan
from components.plan.engines.common import split as parallelism
from components.plan.engines.common import startup_limit
from components.plan.engines.registry import api_port, engine
from components.plan.leftovers import State
from components.plan.steps import Steps
from components.plan.values import Draft, Extra, Identity, Plan, Readiness, Staged, Step, api_base, service_name
from components.problems import Problem, Refused, split
from components.settings import Settings


def before_model(settings: Settings, facts: Mapping[str, NodeFacts], identity: Identity) -> None:
    """Refuse what can be refused without knowing the model."""
    refusals, _ = split(without_model(settings, facts, identity))
    if refusals:
        raise Refused(refusals)


def without_model(settings: Settings, facts: Mapping[str, NodeFacts], identity: Identity) -> Iterator[Problem]:
    """What stands against any plan, or should be known of it, whatever the model."""
    for node in settings.nodes:
        yield from unusable(node, facts[node.name], settings)
    yield from checks.machines(settings, facts)
    yield from checks.leases(settings, identity, facts)
    yield from checks.engine(settings, facts)
    yield from checks.staging(settings)
    yield from checks.beside(settings)
    yield from checks.ports(settings, identity, facts[settings.head.name])
    yield from host.troubles(settings, facts)
    yield from checks.docker_restarts(settings, facts, identity)
    yield from checks.takeovers(identity, facts)
    yield from checks.addresses(settings)
    if len(settings.nodes) > 1:
        yield from fabric.detect(settings, facts)[1]


def watched(made: EnginePlan) -> dict[str, tuple[str, ...]]:
    """Node → components whose container's end is the end of the endpoint."""
    every = [*made.ranks, *((made.ray.head, *made.ray.workers) if made.ray else ())]
    return {node: tuple(c.component for c in every if c.node == node) for node in sorted({c.node for c in every})}


def endpoint_generation(
    identity: Identity, wanted: Mapping[str, tuple[str, ...]], facts: Mapping[str, NodeFacts], head: str, fresh: str
) -> str:
    """As recorded when the model last answered, as long as every container of the endpoint runs."""
    running = {
        (name, container.labels["dgx-spark.component"])
        for name, node in facts.items()
        for container in node.docker.containers
        if container.running and container.labels.get("dgx-spark.stack") == identity.full
    }
    record = facts[head].records.get("endpoint")
    whole = {(node, component) for node, components in wanted.items() for component in components} <= running
    return record.generation if record and whole else fresh


def with_model(context: Context) -> Iterator[Problem]:
    """The same for a plan with this model."""
    settings, facts = context.settings, context.facts
    yield from checks.parallelism(settings, facts, context.model)
    yield from checks.experts(context)
    yield from checks.context_length(context)
    yield from fabric.warnings(settings, facts, context.links) if context.links else ()
    yield from checks.pooling(context)
    yield from checks.catalogued(context)
    yield from checks.loading(context)
    yield from checks.vocabularies(context)
    yield from memory.fit(context)


@dataclass(frozen=True)
class Store:
    """The models that shall be on the Sparks, and what puts each there."""

    weights: tuple[Step, ...]
    draft: Staged | None
    staged: tuple[Staged, ...]
    models: tuple[Model, ...]
    """In the order of `placed`."""

    @property
    def placed(self) -> tuple[tuple[Step, ...], ...]:
        """Of each model, the step for each node."""
        beside = (*([self.draft] if self.draft else ()), *self.staged)
        return (self.weights, *(one.weights for one in beside))


def stored(maker: Steps, context: Context, image: str, staged: Sequence[Model]) -> Store:
    settings, guess, draft = context.settings, context.draft, context.draft_model

    def place(model: Model, kind: str, revision: str | None = None) -> tuple[Step, ...]:
        return steps.place_weights(
            maker, settings, context.facts, context.links, model, image, kind=kind, revision=revision
        )

    drafted = Staged(draft.repo, place(draft, known.KIND, guess.revision)) if guess and draft else None
    return Store(
        weights=place(context.model, models.WEIGHTS, settings.weights.revision),
        draft=drafted,
        staged=tuple(Staged(other.repo, place(other, models.staged_kind(other.repo))) for other in staged),
        models=(context.model, *([draft] if drafted and draft else ()), *staged),
    )


def missing(settings: Settings, store: Store, fresh: str) -> dict[str, list[Model]]:
    """Node → models whose weights are not complete there yet."""
    return {
        node.name: [
            model
            for model, on_nodes in zip(store.models, store.placed, strict=True)
            # Whether a directory of its own has room is not known: the copy says it.
            if on_nodes[rank].triggers[-1] == fresh and not model.path
        ]
        for rank, node in enumerate(settings.nodes)
    }


def on_the_sparks(
    context: Context,
    store: Store,
    fresh: str,
    state: State | None,
    wanted: Mapping[str, frozenset[str]],
    beyond: leftovers.Wanted,
) -> Iterator[Problem]:
    """What stands against it of what lies and runs there: room on the disks, others' containers, leftovers."""
    identity, facts = context.identity, context.facts
    yield from checks.disk(facts, missing(context.settings, store, fresh))
    yield from leftovers.strangers(identity, facts, wanted, checks.holders(identity, facts))
    yield from leftovers.notes(identity, facts, state, wanted)
    yield from leftovers.notes_beyond(facts, state, beyond)


def guesses(settings: Settings, model: Model) -> Draft | None:
    """The draft that is used: the catalog's own not across a pipeline, where few engines guess."""
    found = known.draft(settings)
    if found and not found.configured and parallelism(settings, model.geometry)[1] > 1:
        return None
    return found


def readiness(context: Context, containers: Mapping[str, tuple[str, ...]]) -> Readiness:
    return Readiness(
        context.port,
        context.served_name,
        startup_limit(context),
        containers,
        context.task,
        models.has_chat_template(context.model),
    )


def names(
    made: EnginePlan, extras: Sequence[Extra], identity: Identity, nodes: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Node → names of all containers that are wanted there; those of Swarm's services are Swarm's."""
    ray = (made.ray.head, *made.ray.workers) if made.ray else ()
    wanted = [(one.node, one.name) for one in (*ray, *(() if made.swarm else made.ranks))]
    wanted += [(extra.node, identity.container(extra.role)) for extra in extras]
    return {node: frozenset(name for on, name in wanted if on == node) for node in nodes}


def beyond(made: EnginePlan, extras: Sequence[Extra], identity: Identity) -> leftovers.Wanted:
    volumes = [identity.container(extra.volume[0]) for extra in extras if extra.volume]
    return leftovers.Wanted(
        services=frozenset(service_name(rank) for rank in made.ranks) if made.swarm else frozenset(),
        volumes=frozenset([*volumes, *([made.ray.volume] if made.ray else [])]),
    )


def decide(
    settings: Settings,
    facts: Mapping[str, NodeFacts],
    model: Model,
    identity: Identity,
    *,
    fresh: str,
    dockerfile: str = "",
    staged: Sequence[Model] = (),
    draft: Model | None = None,
    state: State | None = None,
) -> Plan:
    """The whole plan, of what `before_model` did not refuse.

    fresh        the generation of whatever has to be made or repaired in this run
    dockerfile   text, where the image is built
    staged       models to have in place beside the one that is served
    draft        what guesses for it, where that has weights of its own
    state        what Pulumi knows; None where it can't be asked
    """
    links = fabric.detect(settings, facts)[0] if len(settings.nodes) > 1 else {}
    entry = catalog.find(settings.model, settings.catalog)
    guess = guesses(settings, model)
    context = Context(settings, facts, links, model, entry, identity, api_port(settings), guess, draft)
    made = engine(settings).plan(context)
    maker = Steps(identity, facts, fresh)
    images = steps.images(maker, settings, links, made.image, dockerfile)
    store = stored(maker, context, images.name, staged)
    extras = beside.plan(settings, identity, links, context.port, context.served_name)
    wanted = names(made, extras, identity, list(facts))
    besides = beyond(made, extras, identity)
    refusals, warnings = split([*with_model(context), *on_the_sparks(context, store, fresh, state, wanted, besides)])
    if refusals:
        raise Refused(refusals)
    waited = watched(made)
    confirmed = steps.confirm_fabric(maker, links)
    return Plan(
        identity=identity,
        nodes=tuple(node.name for node in settings.nodes),
        links=links,
        preparation=steps.prepare(maker, settings, identity, facts),
        fabric=confirmed,
        qualification=steps.qualify(settings, links, confirmed),
        image=images,
        copy_keys=steps.copy_keys(maker, settings, "copy-key") if steps.copies(settings) else (),
        authorizations=steps.authorize(maker, settings, facts, links, model),
        weights=store.weights,
        draft=store.draft,
        staged=store.staged,
        ray=made.ray,
        swarm=steps.swarm(maker, settings, facts) if made.swarm else None,
        rank_key=steps.rank_key(settings, identity) if made.ranks[1:] else None,
        takes_over=bool(checks.holders(identity, facts)),
        evictions=steps.evict(
            maker, settings, identity, waited, made.swarm, extras, leftovers.unwanted(identity, facts, state, wanted)
        ),
        ranks=made.ranks,
        extras=extras,
        readiness=readiness(context, waited),
        model=model,
        served_name=context.served_name,
        api_base=api_base(settings, context.port),
        endpoint_generation=endpoint_generation(identity, waited, facts, settings.head.name, fresh),
        api_key_path=context.api_key_file,
        api_key_file=engine(settings).api_key_file(settings.api_key.get_secret_value()),
        environment=made.environment,
        strays=leftovers.strays(facts, state, besides),
        warnings=(*split(without_model(settings, facts, identity))[1], *warnings),
    )
