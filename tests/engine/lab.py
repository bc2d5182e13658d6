"""Small Pulumi programs of local commands, run with their state in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops import pulumi

ROOT = Path(__file__).parent.parent.parent
PASSPHRASE = pulumi.DEMO_PASSPHRASE
SALT = "v1:OCBieXRlcy4=:v1:PXopsocL3h71FxT3:FlMFQWmLBgFKjCCujF8hSCSGF+67rQ=="
"""`encryptionsalt` of that passphrase, for all stacks of tests: its key takes half a second, for each run."""

HEADER = """import pulumi
from pulumi import ResourceOptions as Opts
from pulumi_command import local
from pathlib import Path

def command(name, said="", triggers=None, opts=None, delete=None, **more):
    log = Path("calls.log")
    return local.Command(
        name, create=f"echo create {name} >> calls.log; printf '%s' '{said}'",
        delete=delete or f"echo delete {name} >> calls.log",
        triggers=triggers, opts=opts, add_previous_output_in_env=False, **more)

"""


@dataclass
class Result:
    code: int
    text: str
    calls: list[str] = field(default_factory=list)
    """Provider calls in their order: `create x`, `delete x`."""

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Lab:
    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder = folder
        # The CLI looks for packages beside the program, and takes no folder for its state that is not there.
        runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}}
        (folder / "Pulumi.yaml").write_text(f"name: lab\nruntime: {json.dumps(runtime)}\n{config}")
        (folder / "Pulumi.dev.yaml").write_text(f"encryptionsalt: {SALT}\n")
        (folder / "backend").mkdir()
        made = self.run("stack", "init", "dev")
        assert made.code == 0, made.text

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(HEADER + text)

    def run(self, *words: str, program: str | None = None) -> Result:
        if program is not None:
            self.program(program)
        log = self.folder / "calls.log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [*pulumi.chosen().argv, *words],
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.folder,
        )
        calls = log.read_text().splitlines() if log.exists() else []
        return Result(done.returncode, done.stdout + done.stderr, calls)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{self.folder}/backend",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PYTHONPATH": str(ROOT),
            # Bytecode is taken for that of a program of the same second and length, and tests are that fast.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def up(self, program: str | None = None) -> Result:
        return self.run("up", "--yes", "--skip-preview", program=program)

    def preview(self) -> dict[str, Any]:
        """What `preview --json` says."""
        text = self.run("preview", "--json").text
        found: dict[str, Any] = json.loads(text[text.index("{") :])
        return found

    def state(self) -> list[dict[str, Any]]:
        exported = self.run("stack", "export").json
        found: list[dict[str, Any]] = exported["deployment"].get("resources", [])
        return found
