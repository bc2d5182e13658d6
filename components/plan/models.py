"""Which model a stack wants, what the Sparks already hold of it, and where its files are. Pure."""

from __future__ import annotations

import re
from typing import Any

from components import catalog
from components.facts.hub import File, Model, selected, unusable
from components.facts.spark import NodeFacts
from components.problems import Problem, Refused
from components.settings import Settings

WEIGHTS = "weights"
"""Kind of the record of the model that is served."""


def repository(settings: Settings, model: str = "") -> str:
    """A model's repository on the hub: by a catalog name or ORG/NAME; a directory is its own. '': the stack's."""
    named = model or settings.model
    entry = catalog.find(named, settings.catalog)
    return entry.id if entry else named


def is_directory(settings: Settings) -> bool:
    """The model is a directory on the Sparks and no repository."""
    return repository(settings).startswith("/")


def staged_repositories(settings: Settings) -> tuple[str, ...]:
    """Of weights.stage, each once, without the one that is served."""
    every = dict.fromkeys(repository(settings, model) for model in settings.weights.stage)
    return tuple(repo for repo in every if repo != repository(settings))


def staged_kind(repo: str) -> str:
    """Kind of a staged model's record, and the end of its resources' names."""
    return f"staged-{re.sub(r'[^a-z0-9.]+', '-', repo.lower())}"


def look(settings: Settings) -> dict[str, Any] | None:
    """What the probe has to look for on the Sparks, because no hub is asked for it."""
    repo = repository(settings)
    if is_directory(settings):
        return {"path": repo}
    return {"repo": repo, "revision": settings.weights.revision} if settings.weights.offline else None


def present_model(settings: Settings, head: NodeFacts) -> Model:
    """The model as the probe found it on the head. Raises Refused where it is not there."""
    repo = repository(settings)
    if head.present is None and is_directory(settings):
        problem = Problem("model", f"{settings.head.name} has no {repo}/config.json", "name a directory on the head")
        raise Refused([problem])
    if head.present is None:
        where = f"on {settings.head.name}: hf download {repo}, with HF_HOME={head.cache.path}"
        problem = Problem("weights.offline", f"{repo} is not in the cache of {settings.head.name}", where)
        raise Refused([problem])
    every = [File(**file) for file in head.present.files]
    if head.present.config is None:
        where = f"{head.present.commit[:12]} in the cache of {settings.head.name}"
        raise Refused([Problem("model", f"the config.json of {repo} is no JSON object", f"look at it: {where}")])
    if why := unusable(every):
        raise Refused([Problem("model", f"{repo} {why}", "name a model that the engine loads")])
    path = repo if is_directory(settings) else ""
    return Model(repo, head.present.commit, selected(every), head.present.config, path)


def recorded_model(head: NodeFacts, repo: str, revision: str | None, kind: str = WEIGHTS) -> Model | None:
    """The model as the head's intact record has it: keeps an unchanged stack at its commit, without asking the hub.

    A staged model's has no config: nothing is decided from it.
    """
    record = head.records.get(kind)
    config = head.model_config_ if kind == WEIGHTS else {}
    if not record or not record.intact or not record.model or config is None:
        return None
    known = record.model
    if (known["repo"], known["revision"]) != (repo, revision):
        return None
    files = tuple(File(**file) for file in known["files"])
    return Model(known["repo"], known["commit"], files, config, loaded=known.get("loaded", 0))


def on_head(settings: Settings, head: NodeFacts) -> Model | None:
    """The stack's model by what the head has of it; None: the hub has to be asked.

    Raises Refused where it must be there and is not.
    """
    recorded = None if is_directory(settings) else recorded_model(head, repository(settings), settings.weights.revision)
    if recorded or not (is_directory(settings) or settings.weights.offline):
        return recorded
    return present_model(settings, head)


def pinned_revision(head: NodeFacts, repo: str, revision: str | None, kind: str = WEIGHTS) -> str | None:
    """What to ask the hub for: the commit that this stack has already, else what the settings say."""
    record = head.records.get(kind)
    known = record.model if record and record.model else {}
    if (known.get("repo"), known.get("revision")) == (repo, revision):
        return str(known["commit"])
    return revision


def model_folder(cache: str, model: Model) -> str:
    """All that there is of a model: huggingface_hub's folder below HF_HOME, or the directory that it is."""
    return model.path or f"{cache}/hub/models--{model.repo.replace('/', '--')}"


def snapshot_directory(cache: str, model: Model) -> str:
    """Where the files of the commit are. Source: huggingface_hub's documentation, "Understand caching"."""
    return model.path or f"{model_folder(cache, model)}/snapshots/{model.commit}"


ENCODINGS = "hub/tiktoken-encodings"
"""Directory of tokenizer vocabularies, below HF_HOME; among the models, which is what the copy key may read."""


def encoding_file(name: str) -> str:
    """Of a vocabulary, below HF_HOME."""
    return f"{ENCODINGS}/{name}.tiktoken"


def needs_encodings(model: Model) -> bool:
    """gpt-oss's response format is read with OpenAI's vocabularies, which an offline container can't fetch."""
    return "gpt-oss" in model.repo.lower()


TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files that hold a chat template; tokenizer_config.json may hold one too. Source: transformers 5.17, utils/hub.py."""

SENTENCE_TRANSFORMERS = "modules.json"
"""What sentence-transformers models have, and others not. Source: sbert.net, "Creating Custom Models"."""


def has_chat_template(model: Model) -> bool:
    """For sure; False: it may still have one."""
    return any(file.path in TEMPLATES or file.path.startswith("additional_chat_templates/") for file in model.files)


def task(entry: catalog.Entry | None, model: Model | None) -> catalog.Task:
    """What the model is for: as the catalog says, else as its files do; for text where they are not known (None)."""
    if entry and entry.task:
        return entry.task
    if model is None:
        return "generate"
    architectures = model.config.get("architectures") or []
    if any(str(name).endswith("ForSequenceClassification") for name in architectures):
        return "score"
    return "embed" if any(file.path == SENTENCE_TRANSFORMERS for file in model.files) else "generate"


def served_task(settings: Settings, head: NodeFacts) -> catalog.Task:
    """The same of a stack that serves, without the hub."""
    try:
        model = on_head(settings, head)
    except Refused:
        # Gone from the disk since the engine loaded it.
        model = None
    return task(catalog.find(settings.model, settings.catalog), model)
