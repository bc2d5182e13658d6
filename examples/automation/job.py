"""Serve a model for the time of one job: `.venv/bin/python examples/automation/job.py MODEL COMMAND…`.

The command finds the endpoint in OPENAI_BASE_URL and the model's name in MODEL. Whatever becomes of it, the Sparks are
handed back; weights stay in their caches. The stack is the job's own: no stack file is read or written, and it is gone
afterwards. Needs the Pulumi CLI, logged in to a backend, and Sparks that no other stack holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pulumi
from pulumi import automation

# Where `components` is: in a project of your own its path, as PYTHONPATH does it, too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from components import cluster

PROJECT, STACK = "model-for-a-job", "job"
"""One kind of job, one name: while a stack has the Sparks, those of other names are refused. The next job of this name
goes on with what one that was killed has left (where that holds the stack's lock, after `pulumi cancel`)."""

# Yours: the keys of docs/configuration.md.
SETTINGS = {
    "nodes": [{"name": "spark-1", "host": "192.168.1.11"}, {"name": "spark-2", "host": "192.168.1.12"}],
    "ssh": {
        "hostKeys": {
            "spark-1": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa1",
            "spark-2": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa2",
        }
    },
    "hfToken": os.environ.get("HF_TOKEN", ""),
    "apiKey": os.environ.get("API_KEY", ""),
}


def program(model: str) -> Callable[[], None]:
    """What Pulumi runs, in this process."""

    def build() -> None:
        made = cluster("llm", {**SETTINGS, "model": model})
        pulumi.export("api_base", made.plan.api_base)
        pulumi.export("model", made.plan.served_name)

    return build


def run(model: str, command: list[str]) -> int:
    """The command's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        options = automation.LocalWorkspaceOptions(work_dir=folder)
        stack = automation.create_or_select_stack(STACK, PROJECT, program(model), opts=options)
        try:
            # Refreshed, in case a job that was killed has left something.
            outputs = stack.up(on_output=print, refresh=True).outputs
            env = {"OPENAI_BASE_URL": outputs["api_base"].value, "MODEL": outputs["model"].value}
            if SETTINGS["apiKey"]:
                env["OPENAI_API_KEY"] = str(SETTINGS["apiKey"])
            return subprocess.run(command, env={**os.environ, **env}).returncode
        finally:
            stack.destroy(on_output=print, remove=True)


if __name__ == "__main__":
    wanted, *words = sys.argv[1:]
    try:
        sys.exit(run(wanted, words))
    except automation.CommandError as error:
        sys.exit(str(error))
