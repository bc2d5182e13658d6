"""Serve a model for the time of one job: `.venv/bin/python examples/automation/job.py STACK MODEL COMMAND…`.

The command finds the endpoint in OPENAI_BASE_URL and the model's name in MODEL. Whatever becomes of it, the Sparks are
handed back; weights stay in their caches. Needs the Pulumi CLI, and STACK's file Pulumi.STACK.yaml.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pulumi import automation

ROOT = Path(__file__).resolve().parent.parent.parent


def run(stack_name: str, model: str, command: list[str]) -> int:
    """The command's exit code."""
    stack = automation.create_or_select_stack(stack_name, work_dir=str(ROOT))
    stack.set_config("model", automation.ConfigValue(model))
    try:
        outputs = stack.up(on_output=print).outputs
        env = {"OPENAI_BASE_URL": outputs["api_base"].value, "MODEL": outputs["model"].value}
        if outputs["api_key"].value:
            env["OPENAI_API_KEY"] = outputs["api_key"].value
        return subprocess.run(command, env={**os.environ, **env}).returncode
    finally:
        stack.destroy(on_output=print)


if __name__ == "__main__":
    name, wanted, *words = sys.argv[1:]
    try:
        sys.exit(run(name, wanted, words))
    except automation.CommandError as error:
        sys.exit(str(error))
