"""Three simulated Sparks for the whole session, and stacks to converge on them."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from components.plan.engines import sglang
from ops import pulumi
from ops.demo import stack_config
from simulator import network, preflight, sparks
from simulator import up as simulation
from simulator.layout import CLAIM, Spark, Traits
from tests.e2e.steps import pytest_runtest_makereport as pytest_runtest_makereport
from tests.e2e.steps import step as step
from tests.engine.lab import SALT

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ("Pulumi.yaml", "Pulumi.README.md", "__main__.py", "components")


@pytest.fixture(scope="session")
def simulated(warm_starts: None) -> Iterator[list[Spark]]:
    """Three Sparks. SPARK_KEEP=1: whoever runs the tests brings them up and down, or leaves them up."""
    keep = os.environ.get("SPARK_KEEP") == "1"
    if CLAIM.exists() and not keep:
        pytest.exit("Sparks are simulated already: ./spark demo --down first", returncode=1)
    preflight.ensure()
    try:
        yield simulation.up(3, print)
    finally:
        if not keep:
            simulation.down()
            assert simulation.remains() == ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the third Spark alone can run beside all others (ops/gates.py). What a test itself asks for says so:
    `simulated` is all Sparks."""
    for item in items:
        if isinstance(item, pytest.Function) and "third" in item.fixturenames:
            asked = inspect.signature(item.function).parameters
            if "simulated" not in asked:
                item.add_marker("alone")


@dataclass
class Run:
    code: int
    text: str


class Stack:
    """One stack of the unmodified program, with a folder and a state of its own."""

    def __init__(self, folder: Path, name: str, nodes: list[Spark], **config: Any) -> None:
        self.folder, self.name, self.nodes = folder, name, nodes
        for part in PROGRAM:
            if not (folder / part).exists():
                (folder / part).symlink_to(ROOT / part)
        if not (folder / ".venv").exists():
            # The Pulumi CLI looks for it beside the program.
            (folder / ".venv").symlink_to(sys.prefix)
        self.environment = pulumi.environment(folder / "state")
        self.configure(**config)
        self("stack", "init", name)

    def configure(self, **config: Any) -> None:
        """Write the stack file: simulated nodes, and `config` on top (merged one level deep)."""
        path = self.folder / f"Pulumi.{self.name}.yaml"
        document = yaml.safe_load(path.read_text()) if path.exists() else {"encryptionsalt": SALT}
        # Ray has more parts to go wrong; test_engines.py has vLLM without it.
        base = {**stack_config(self.nodes), "dgx-spark:serving": {"executor": "ray"}}
        for key, value in config.items():
            full = f"dgx-spark:{key}"
            merge = isinstance(value, dict) and isinstance(base.get(full), dict)
            base[full] = {**base[full], **value} if merge else value
        path.write_text(yaml.safe_dump({**document, "config": base}, sort_keys=False))

    @property
    def argv(self) -> tuple[str, ...]:
        return pulumi.chosen().argv

    def __call__(self, *words: str, check: bool = True) -> Run:
        done = subprocess.run(
            [*self.argv, *words], env=self.environment, cwd=self.folder, capture_output=True, text=True
        )
        run = Run(done.returncode, done.stdout + done.stderr)
        assert not check or run.code == 0, run.text
        return run

    def up(self, *, check: bool = True) -> Run:
        return self("up", "--yes", "--skip-preview", "--stack", self.name, check=check)

    def preview(self) -> dict[str, str]:
        """Resource → what would happen to it; components and unchanged ones left out."""
        steps = json.loads(self("preview", "--json", "--stack", self.name).text)["steps"]
        shown = ("create", "update", "replace", "delete")
        custom = ("docker:", "command:")
        return {
            s["urn"].rsplit("::", 1)[1]: s["op"]
            for s in steps
            if s["op"] in shown and s["urn"].split("::")[2].rsplit("$")[-1].startswith(custom)
        }

    def refusal(self) -> str:
        """What a preview that is refused says."""
        run = self("preview", "--stack", self.name, check=False)
        assert run.code != 0, run.text
        assert "Traceback" not in run.text
        return run.text

    def is_clean(self, but: str | None = None) -> bool:
        """`but`: words of what a preview may call left over."""
        run = self("preview", "--expect-no-changes", "--diff", "--stack", self.name, check=False)
        notes = [line for line in run.text.splitlines() if "left over" in line and (but is None or but not in line)]
        clean = run.code == 0 and not notes
        if not clean:
            # For whoever reads why a test has failed.
            print(run.text)
        return clean

    def destroy(self) -> None:
        self("destroy", "--yes", "--stack", self.name)

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("stack", "output", "--json", "--stack", self.name).text)
        return found

    def complete(self, prompt: str = "Hello", outputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        outputs = outputs or self.outputs()
        body = {"model": outputs["model"], "prompt": prompt, "max_tokens": 5, **more}
        answer = requests.post(f"{outputs['api_base']}/completions", json=body, timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def answers(self, outputs: dict[str, Any]) -> bool:
        try:
            return bool(self.complete(outputs=outputs)["choices"])
        except requests.RequestException:
            return False

    def comes_back(self, *, limit: float = 150) -> None:
        """Wait until the model answers, without any help."""
        outputs = self.outputs()
        sparks.wait_for(lambda: self.answers(outputs), f"{self.name} to answer", limit=limit)

    def serves_and_goes(self) -> None:
        """Up, an answer, a clean preview; destroyed in any case."""
        try:
            step("up, and an answer")
            self.up()
            assert self.complete()["choices"]
            step("a clean preview")
            assert self.is_clean()
        finally:
            self.destroy()
        step("gone")

    def container(self, role: str) -> str:
        return f"dgx-spark-{self.name}-{role}"


def unlocked(stack: Stack) -> None:
    """What is killed leaves its lock beside the state."""
    stack("cancel", "--yes", "--stack", stack.name, check=False)


SOME_IMAGE = sglang.IMAGE.partition("@")[0]
"""Is on every simulated Spark."""


def on_rdma(log: str) -> set[str]:
    """Sparks whose rank's NCCL has set up a channel over RDMA, by a log that may hold several ranks'."""
    return set(re.findall(r"([\w.-]+):\d+:\d+ \[0\] NCCL INFO Channel \S+ : .* via NET/IB/", log))


def container_id(spark: Spark, name: str) -> str:
    return sparks.on(spark, f"docker inspect --format '{{{{.Id}}}}' {name}").strip()


def end_container(spark: Spark, name: str) -> None:
    """Its main process is killed, as by the kernel: Docker does not count that as stopped by hand."""
    sparks.inside(spark, "kill", "-9", sparks.on(spark, f"docker inspect --format '{{{{.State.Pid}}}}' {name}").strip())


def end_engine(spark: Spark, name: str) -> None:
    """The engine's process alone is killed; its container's main process (inside/together.py) stays. Where that has
    ended it already, since another rank's has gone, there is nothing to do."""
    kill = 'engine=$(ps -o pid= --ppid $(ps -o pid= --ppid 1 | head -1)); [ -z "$engine" ] || kill -9 $engine'
    sparks.on(spark, f"docker exec {name} sh -c '{kill}'")


def says(spark: Spark, name: str, words: str, *, limit: float = 90) -> None:
    """Wait until the container's log holds `words`."""
    log = f"docker logs {name} 2>&1"
    sparks.wait_for(lambda: words in sparks.on(spark, log, check=False), f"{name}: {words}", limit=limit)


LEFT_BEHIND = {
    "containers": "docker ps -a --format '{{.Names}}' | sort",
    "volumes": "docker volume ls -q | grep -v ^dgx-spark-compiled. | sort",
    "networks": "docker network ls --format '{{.Name}}' | sort",
    "files": "find ~ -path ~/.cache -prune -o -print | sort",
    "keys": "cat ~/.ssh/authorized_keys",
    "mounts": "ls /tmp",
    "docker": "cat /etc/docker/daemon.json /etc/nvidia-container-runtime/config.toml",
    "swarm": "docker info --format '{{.Swarm.LocalNodeState}} {{.DefaultRuntime}}'",
}
"""What a stack might leave on a Spark: containers, networks, volumes, files outside the cache, keys. What engines
compiled stays as weights do."""


def left_behind(spark: Spark) -> dict[str, str]:
    return looks(spark, LEFT_BEHIND)


def looks(spark: Spark, commands: dict[str, str]) -> dict[str, str]:
    """What each of these says, all by one login."""
    mark = "<look>"
    said = sparks.on(spark, " && ".join(f"echo '{mark}' && {{ {command}; }}" for command in commands.values()))
    return dict(zip(commands, said.split(f"{mark}\n")[1:], strict=True))


def changed(before: dict[str, str], now: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    """Of what differs, the lines that went and those that came: a test that fails says which."""
    lines = {name: (before[name].splitlines(), now[name].splitlines()) for name in before if before[name] != now[name]}
    return {
        name: {"went": [line for line in old if line not in new], "came": [line for line in new if line not in old]}
        for name, (old, new) in lines.items()
    }


def restart_docker(*chosen: Spark) -> None:
    """What each of them ran ends at once, and comes back by itself if it is to."""
    for spark in chosen:
        sparks.on(spark, "sudo systemctl restart docker")


def reboot(*cut: Spark) -> None:
    """All of these at once, as after a power cut."""
    for spark in cut:
        sparks.power_off(spark)
    for spark in cut:
        sparks.power_on(spark)
    sparks.wait_until_up(sparks.existing())


@pytest.fixture
def third(simulated: list[Spark]) -> Iterator[Spark]:
    """The third Spark, for one test at a time, put right again afterwards."""
    spark = simulated[2]
    with open(spark.home / "in-use", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield spark
        spark.knobs.unlink(missing_ok=True)
        network.cable(spark, port=1)


@pytest.fixture
def unlike(third: Spark) -> Iterator[Callable[..., Spark]]:
    """Makes the third Spark one with the given traits, for one test."""

    def become(**traits: Any) -> Spark:
        spark = replace(third, traits=Traits(**traits))
        sparks.reinstall(spark)
        return spark

    yield become
    sparks.reinstall(third)


@pytest.fixture(scope="session")
def _idle(simulated: list[Spark], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return Stack(tmp_path_factory.mktemp("idle"), "idle", [simulated[2]])


@pytest.fixture
def idle(_idle: Stack, third: Spark) -> Stack:
    """The third Spark's stack for tests that only preview: one for all of them, with the plain settings."""
    _idle.configure()
    return _idle


@pytest.fixture
def alone(third: Spark, tmp_path: Path) -> Iterator[Stack]:
    """A stack of the third Spark alone, destroyed afterwards."""
    stack = Stack(tmp_path, "alone", [third])
    yield stack
    stack.configure()
    stack.destroy()
