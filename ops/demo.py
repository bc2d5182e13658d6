"""`./spark demo`: two simulated Sparks, `pulumi up`, a question, and what to try next."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import requests
import yaml
from rich.console import Console

from ops import pulumi
from ops.project import document
from ops.pulumi import DEMO_STATE, ROOT, CommandError
from simulator import hub, layout, sparks
from simulator import up as simulation
from simulator.genuine import stack as genuine
from simulator.shell import SimulatorError

STACK = "demo"
STACK_FILE = ROOT / f"Pulumi.{STACK}.yaml"
QUESTION = "What is a DGX Spark?"

LENGTH, OTHER = 8192, "gpt-oss-20b"
"""What the demonstration proposes to change: the context, the model."""

REAL_LENGTH, REAL_OTHER = 1024, genuine.GRACE
"""The same for the genuine engine, which has models of its own."""

console = Console(highlight=False, soft_wrap=True)


def stack_config(nodes: list[layout.Spark]) -> dict[str, Any]:
    """The stack file of a simulated cluster: only what differs from real Sparks is set."""
    return {
        "dgx-spark:nodes": [{"name": spark.name, "host": spark.address} for spark in nodes],
        "dgx-spark:ssh": {
            "user": layout.USER,
            # One for all, as the program has it.
            "port": nodes[0].traits.ssh_port,
            "privateKeyFile": str(layout.KEY),
            "hostKeys": {spark.name: sparks.host_key(spark) for spark in nodes},
        },
        # A simulated link is as fast as this machine is idle.
        "dgx-spark:fabric": {"minRdmaGbps": 0, "minTcpGbps": 0},
        "dgx-spark:weights": {"endpoint": simulation.HUB, "encodings": hub.encodings(simulation.HUB)},
    }


def up(count: int, docker: str, *, real: bool = False) -> None:
    """`real`: with a genuine vLLM, which answers from models that know QUESTION."""
    began = time.monotonic()
    if real and (lacking := genuine.lacking()):
        raise CommandError(f"--real: {lacking}")
    try:
        nodes = simulation.up(count, lambda text: console.print(f"[bold]·[/bold] {text}"), docker=docker, real=real)
    except SimulatorError as error:
        raise CommandError(str(error)) from None
    env = pulumi.environment()
    pulumi.fetch(lambda text: console.print(f"[bold]·[/bold] {text}"))
    console.print(f"[bold]·[/bold] pulumi up, by {pulumi.chosen(env).name}")
    kept = document(STACK_FILE)
    # As in Pulumi.head-worker.yaml: the parts that can be looked at are more.
    chosen = genuine.config() if real else {"dgx-spark:serving": {"executor": "ray"}}
    config = {**chosen, **(kept.get("config") or {}), **stack_config(nodes)}
    STACK_FILE.write_text(yaml.safe_dump({**kept, "config": config}, sort_keys=False, width=1000))
    if STACK not in pulumi.output(["stack", "ls"], env):
        pulumi.output(["stack", "init", STACK], env)
    if pulumi.run(["up", "--yes", "--skip-preview", "--stack", STACK], env):
        raise CommandError("pulumi up failed (see above); `./spark demo` again goes on, `./spark demo --down` gives up")
    outputs = json.loads(pulumi.output(["stack", "output", "--json", "--stack", STACK], env))
    ask(outputs, time.monotonic() - began)
    propose(outputs["api_base"], *((REAL_LENGTH, REAL_OTHER) if real else (LENGTH, OTHER)))


def ask(outputs: dict[str, Any], seconds: float) -> None:
    base, model = outputs["api_base"], outputs["model"]
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24}
    answer = requests.post(f"{base}/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    text = answer.json()["choices"][0]["message"]["content"].strip()
    console.print(f"\n[bold]{model}[/bold] answers at [bold]{base}[/bold] after {seconds:.0f} s:")
    console.print(f"  > {QUESTION}\n  {text}\n")


def propose(base: str, length: int, model: str) -> None:
    """What to do with it, each of which works."""
    console.print(
        "Try next (./spark preview, up, config and stack are pulumi's own):\n"
        f"  curl {base}/models\n"
        "  ./spark preview                                    # nothing to do\n"
        f"  ./spark config set --path serving.maxModelLen {length}\n"
        "  ./spark preview --diff                             # exactly the server would be replaced\n"
        f"  ./spark config set model {model} && ./spark up --yes\n"
        "  ./spark stack output nodes                         # what was detected, Spark by Spark\n"
        "  ./spark status, ./spark check, ./spark doctor, ./spark bench, ./spark logs -f\n"
        "  ./spark demo --down                                # take it all away"
    )


def down(*, purge: bool = False) -> None:
    """End the simulation and forget its stack. What was downloaded and built stays for the next time, or goes too."""
    simulation.down()
    shutil.rmtree(DEMO_STATE, ignore_errors=True)
    STACK_FILE.unlink(missing_ok=True)
    console.print("The simulated Sparks are gone.")
    if not purge:
        console.print(f"{layout.CACHE} keeps their system and images; --down --purge removes that too.")
        return
    try:
        held = simulation.purge()
    except SimulatorError as error:
        raise CommandError(str(error)) from None
    console.print(f"Removed {layout.CACHE}: their root file system, images and wheels, {held / 1e9:.1f} GB.")
