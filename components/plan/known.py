"""What the catalog knows of a model, as far as it holds for what the user has chosen. Pure."""

from __future__ import annotations

from components import catalog
from components.catalog import Served
from components.facts.hub import File, Model, selected
from components.facts.spark import NodeFacts
from components.plan.models import repository, staged_repositories
from components.plan.values import Draft
from components.problems import Problem, Refused
from components.settings import Settings

KIND = "draft"
"""Kind of the record of a draft's own weights."""


def served(settings: Settings, entry: catalog.Entry | None) -> Served:
    """For the stack's engine; without what is for the catalog's image where the user has another."""
    known = entry.served(settings.engine) if entry else Served()
    if left_out(settings, known):
        return known.model_copy(update={"args": (), "env": {}, "draft": None, "load_format": None})
    return known


def left_out(settings: Settings, known: Served) -> bool:
    """The catalog has settings for an image that is not used."""
    chosen = settings.image
    other = chosen.source == "build" or chosen.name not in (None, known.image)
    return bool(known.image and other and (known.args or known.env or known.draft))


def draft(settings: Settings) -> Draft | None:
    """What guesses tokens ahead: as configured, else as the catalog knows. None: nothing does."""
    own = settings.serving.draft
    if own is not None:
        if own.method == "none":
            return None
        return Draft(own.method, own.tokens, own.model or "", own.revision, own.options, configured=True)
    known = served(settings, catalog.find(settings.model, settings.catalog)).draft
    return Draft(known.method, known.tokens, known.model or "", None, known.options) if known else None


def present(settings: Settings, head: NodeFacts, repo: str) -> Model:
    """A draft's weights as the probe found them on the head. Raises Refused where they are not there."""
    if head.draft is None:
        wrong = f"{repo}, which guesses tokens for the model, is not in the cache of {settings.head.name}"
        remedy = f"hf download {repo}, or go without it: pulumi config set --path serving.draft.method none"
        raise Refused([Problem("weights.offline", wrong, remedy)])
    files = selected(File(**file) for file in head.draft.files)
    return Model(repo, head.draft.commit, files, head.draft.config or {})


def stored(settings: Settings) -> tuple[str, ...]:
    """Repositories to have in place for a later switch, each once: the staged models, with their drafts."""
    found = dict.fromkeys(staged_repositories(settings))
    for model in settings.weights.stage:
        entry = catalog.find(model, settings.catalog)
        known = entry.served(settings.engine).draft if entry else None
        found |= {known.model: None} if known and known.model else {}
    now = draft(settings)
    return tuple(repo for repo in found if repo not in (repository(settings), now.repo if now else ""))
