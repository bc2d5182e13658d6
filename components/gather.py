"""Ask all Sparks and, where needed, the model hub: the only reads before the plan."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from pulumi_command import local

from components import hub, spark_scripts, ssh, steps
from components.checks import on_swarm
from components.engines.registry import image_name
from components.facts import NodeFacts, parse
from components.plan import Identity
from components.problems import Problem, Refused
from components.settings import Settings

OUR_DOCKERFILE = Path(__file__).parent / "images" / "vllm.Dockerfile"

PROBE_LIMIT = 50
"""Seconds after which a Spark's probe ends itself."""


def facts(settings: Settings, identity: Identity) -> dict[str, NodeFacts]:
    """Facts of every Spark. Raises Refused naming each one that can't be asked."""
    targets = [
        {
            "name": node.name,
            "argv": [*ssh.argv(node, settings.ssh), spark_scripts.command("probe.py", "apply", limit=PROBE_LIMIT)],
            "stdin": spark_scripts.text(
                "probe.py",
                {
                    "stack": identity.full,
                    "cache": node.cache or settings.weights.cache,
                    "repo": steps.repository(settings),
                    "images": [image_name(settings)],
                    "sudo": on_swarm(settings),
                },
            ),
        }
        for node in settings.nodes
    ]
    # One invoke for all: Pulumi runs invokes one after the other.
    answer = local.run(
        command=f"{shlex.quote(sys.executable)} -m components.probe",
        stdin=json.dumps(targets),
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
    )
    found, problems = parse(json.loads(answer.stdout), settings)
    if problems:
        raise Refused(problems)
    return found


def model(settings: Settings, head: NodeFacts) -> hub.Model:
    """The model, from the head's own record where that is intact, else from the hub."""
    recorded = steps.recorded_model(settings, head)
    if recorded:
        return recorded
    revision = steps.pinned_revision(settings, head)
    token = settings.hf_token.get_secret_value()
    return hub.look_up(settings.weights.endpoint, steps.repository(settings), revision, token)


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
