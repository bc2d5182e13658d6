"""Ask all Sparks and, where needed, the model hub: the only reads before the plan."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from pulumi_command import local

from components import hub, probing, steps
from components.facts import NodeFacts, parse
from components.plan import Identity
from components.problems import Problem, Refused
from components.settings import Settings

OUR_DOCKERFILE = Path(__file__).parent / "images" / "vllm.Dockerfile"


def facts(settings: Settings, identity: Identity) -> dict[str, NodeFacts]:
    """Facts of every Spark. Raises Refused naming each one that can't be asked."""
    # One invoke for all: Pulumi runs invokes one after the other.
    answer = local.run(
        command=f"{shlex.quote(sys.executable)} -m components.probe",
        stdin=json.dumps(probing.targets(settings, identity.full)),
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
    )
    found, problems = parse(json.loads(answer.stdout), settings)
    if problems:
        raise Refused(problems)
    return found


def model(settings: Settings, head: NodeFacts) -> hub.Model:
    """The model, from the head itself where it has it, else from the hub."""
    repo = steps.repository(settings)
    if steps.is_directory(settings):
        return steps.present_model(settings, head)
    recorded = steps.recorded_model(head, repo, settings.weights.revision)
    if recorded:
        return recorded
    if settings.weights.offline:
        return steps.present_model(settings, head)
    return _look_up(settings, repo, steps.pinned_revision(head, repo, settings.weights.revision))


def staged(settings: Settings, head: NodeFacts) -> tuple[hub.Model, ...]:
    """The models to have in place beside it (weights.stage)."""
    found = []
    for repo in steps.staged_repositories(settings):
        kind = steps.staged_kind(repo)
        known = steps.recorded_model(head, repo, None, kind)
        found.append(known or _look_up(settings, repo, steps.pinned_revision(head, repo, None, kind)))
    return tuple(found)


def _look_up(settings: Settings, repo: str, revision: str | None) -> hub.Model:
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
