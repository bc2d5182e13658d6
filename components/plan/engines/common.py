"""What every engine decides the same way: how the GPUs are split, and what all containers share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from components.catalog import Served, Task
from components.facts.geometry import Geometry
from components.plan.division import layouts
from components.plan.engines import Context, compiled
from components.plan.environment import SINGLE_NODE, chosen_gpu, communication
from components.plan.fit import DEFAULT_SHARE, RAY_SHARE
from components.plan.models import ENCODINGS, needs_encodings, snapshot_directory
from components.plan.steps import inside
from components.plan.values import RANK_KEY, SECRET_ENVIRONMENT, SHM_SIZE, Container, Mount, content, digest
from components.ports import RANKS
from components.settings import Settings

Environments = dict[str, dict[str, str]]
"""Node → variables."""

HF_HOME = "/root/.cache/huggingface"
"""Where the weights are in every container."""

MODULES = "/tmp/huggingface-modules"
"""Where a container keeps the Python code that some models bring (`auto_map` in config.json): transformers copies it
there, and the cache itself is mounted read-only. Source: transformers, utils/hub.py, HF_MODULES_CACHE."""

VOCABULARIES = f"{HF_HOME}/{ENCODINGS}"

ALWAYS = {
    "NVIDIA_DRIVER_CAPABILITIES": "all",
    "HF_HOME": HF_HOME,
    "HF_MODULES_CACHE": MODULES,
    # Weights are in place and verified: nothing may be fetched, and no token is needed.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""Environment of every container of ours."""

DRAIN = 20
"""Seconds that a server which is to end has for the requests that it has accepted."""

GRACE = DRAIN + 40
"""Seconds from a container's SIGTERM to its SIGKILL: those, and what rank 0 and then the others take to end
(GRACE of inside/together.py)."""

CRASHES = 10
"""How often Docker starts a rank's container again that was killed. An engine's own failures are counted by
inside/together.py, which ends with 0 when it gives up."""

PULSE = "/opt/dgx-spark/pulse.py"
"""Where rank 0's container has components/inside/pulse.py."""

WITH_ENVIRONMENT = "/opt/dgx-spark/environment.py"
"""Where a container has components/inside/environment.py."""

TOGETHER = "/opt/dgx-spark/together.py"
"""Where a rank's container has components/inside/together.py."""

NEEDED = ("CAP_DAC_OVERRIDE", "CAP_IPC_LOCK")
"""Of Linux's capabilities, what every engine needs: to read weights of whoever owns them on the Spark, and to register
memory for RDMA, which must not be swapped out."""

LOW_PORTS = ("CAP_NET_BIND_SERVICE",)
"""To listen on a port below 1024."""

SSHD = ("CAP_AUDIT_WRITE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT")
"""Of sshd, for MPI's ranks: its unprivileged half, and the record of a login. Source: openssh-portable, sshd.c and
audit-linux.c."""

T = TypeVar("T")


def choose(configured: T | None, known: T | None) -> T | None:
    """What the user set, else what the catalog knows. False and 0 are values too."""
    return configured if configured is not None else known


def option(flag: str, value: object) -> list[str]:
    """[`flag=value`], or nothing where there is no value."""
    return [f"{flag}={value}"] if value else []


def more_arguments(context: Context) -> tuple[str, ...]:
    """The catalog's for this model, without those that the user gives otherwise, and the user's."""
    own = context.settings.serving.extra_args
    said = {_option_name(word) for word in own if word.startswith("--")}
    left, kept = False, []
    for word in context.known.args:
        # What follows an option without `=` is its value.
        left = _option_name(word) in said if word.startswith("--") else left
        kept += [] if left else [word]
    return (*kept, *own)


def _option_name(word: str) -> str:
    """vLLM and SGLang take underscores for hyphens, and --no-… turns a switch off."""
    return word.partition("=")[0].replace("_", "-").replace("--no-", "--", 1)


def draft_directory(context: Context) -> str | None:
    """Where a container finds the weights of what guesses; None: they are the model's own."""
    return snapshot_directory(HF_HOME, context.draft_model) if context.draft_model else None


PREFETCH = "prefetch"
"""The loader that is an option of its own to the engines that know it."""


@dataclass(frozen=True)
class Wanted:
    """How the model is served: as configured, else as the catalog knows for this engine. None: the engine's own
    default."""

    length: int | None
    memory_share: float | None
    trust_remote_code: bool | None
    expert_parallel: bool | None
    reasoning_parser: str | None
    tool_call_parser: str | None
    loader: str | None
    """None: the engine's own way."""


def on_ray(settings: Settings) -> bool:
    """Ray runs the ranks."""
    return settings.engine == "vllm" and len(settings.nodes) > 1 and settings.serving.executor == "ray"


def memory_share(settings: Settings, known: Served) -> float | None:
    """As configured, else as the catalog knows; on Ray no more than leaves room for it."""
    configured = settings.serving.gpu_memory_utilization
    if configured is not None or settings.engine != "vllm":
        return choose(configured, known.gpu_memory_utilization)
    # Newer versions' own default is 0.92, with which none starts on a Spark (fit.OTHERS).
    share = choose(known.gpu_memory_utilization, DEFAULT_SHARE["vllm"])
    assert share is not None
    return min(share, RAY_SHARE) if on_ray(settings) else share


def wanted(settings: Settings, known: Served) -> Wanted:
    """`known`: what the catalog knows for this engine."""
    serving = settings.serving
    return Wanted(
        length=choose(serving.max_model_len, known.max_model_len),
        memory_share=memory_share(settings, known),
        trust_remote_code=choose(serving.trust_remote_code, known.trust_remote_code),
        expert_parallel=choose(serving.expert_parallel, known.expert_parallel),
        reasoning_parser=choose(serving.reasoning_parser, known.reasoning_parser),
        tool_call_parser=choose(serving.tool_call_parser, known.tool_call_parser),
        loader=None if serving.loader == "auto" else choose(serving.loader, known.load_format),
    )


def rank_environments(context: Context) -> Environments:
    """Each rank's communication environment, and which GPU it has where that was chosen."""
    nodes = context.settings.nodes
    return {
        node.name: (communication(context.links[node.name]) if len(nodes) > 1 else SINGLE_NODE)
        | (chosen_gpu(context.facts[node.name]) if node.gpu else {})
        for node in nodes
    }


def split(settings: Settings, geometry: Geometry) -> tuple[int, int]:
    """(tensor parallel, pipeline parallel) of one copy of the model, one GPU per Spark.

    Unless set: as much tensor parallel as the model can be divided, and pipeline parallel for the rest.
    """
    gpus = max(1, len(settings.nodes) // settings.serving.data_parallel)
    tensor, pipeline = settings.serving.tensor_parallel, settings.serving.pipeline_parallel
    if tensor is None and pipeline is None:
        return layouts(geometry, gpus, settings.engine)[0]
    if tensor is None:
        assert pipeline is not None
        return max(1, gpus // pipeline), pipeline
    return tensor, pipeline if pipeline is not None else max(1, gpus // tensor)


STARTUP = 1800
"""Seconds from a server's start to its first answer. Source: the limit of vllm-dgx-spark's own start script."""

STARTUP_PER_GB = 30
"""Seconds for each 10^9 bytes of weights on a Spark; twice what was published of a pair that took 15 minutes
for 58 GiB on each. Source: conselara.dev, Qwen3-235B on two Sparks, vLLM 0.19."""


def startup_limit(context: Context) -> int:
    """Seconds: as configured, else as the catalog knows, else by the weights' size."""
    known = context.entry.startup_timeout if context.entry else None
    each = context.model.size / 1e9 / len(context.settings.nodes) * context.settings.serving.data_parallel
    limit = choose(context.settings.serving.startup_timeout, known)
    return limit if limit is not None else max(STARTUP, int(each * STARTUP_PER_GB))


def chosen_image(settings: Settings, known: Served, default: str) -> str:
    """As set, else what the catalog says that the model needs, else the engine's default."""
    return settings.image.name or known.image or default


def entrypoint(image: str) -> tuple[str, ...] | None:
    """NVIDIA's entrypoint sets up CUDA's forward compatibility and runs its arguments: kept. Others may be
    the server itself (vllm/vllm-openai), so they are replaced by a program that only runs its arguments."""
    return None if image.startswith("nvcr.io/nvidia/") else ("/usr/bin/env",)


SMALLEST: dict[Task, tuple[str, dict[str, object]]] = {
    "generate": ("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "Hello"}),
    "score": ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}),
}
"""What costs an engine least: (path, body without the model)."""


def asked(settings: Settings) -> bool:
    """Whether the engine is asked while it serves. trtllm-serve has no counters by which a stuck one could be told from
    a busy one, and a detector of its own. Source: TensorRT-LLM, pyexecutor/hang_detector.py."""
    return settings.engine != "trtllm" and settings.serving.stuck_after > 0


def together(ranks: tuple[Container, ...]) -> tuple[Container, ...]:
    """Ranks that are replaced together and join no others: each carries a digest of all of them."""
    mark = {"DGX_SPARK_SERVER": digest([content(rank) for rank in ranks])}
    return tuple(replace(rank, environment={**rank.environment, **mark}) for rank in ranks) if ranks[1:] else ranks


class ContainerMaker:
    """Fills in what all of an engine's containers share."""

    def __init__(
        self, context: Context, environments: Environments, default_image: str, capabilities: tuple[str, ...] = ()
    ) -> None:
        """`capabilities`: of Linux's, those that this engine needs beside what all need."""
        self._context, self._environments = context, environments
        low = LOW_PORTS if context.port < 1024 else ()
        added = context.settings.containers.capabilities
        self._capabilities = tuple(sorted({*NEEDED, *low, *capabilities, *added}))
        self.image = chosen_image(context.settings, context.known, default_image)

    def service(
        self,
        role: str,
        node: str,
        command: tuple[str, ...],
        *,
        ports: tuple[int, ...] = (),
        mounts: tuple[Mount, ...] = (),
    ) -> Container:
        """A container that Docker keeps running, whatever ends it. `ports`: what it listens on."""
        return self._make(role, node, command, ports=ports, mounts=mounts, restart="unless-stopped")

    def rank(
        self,
        node: str,
        command: tuple[str, ...],
        *,
        ports: tuple[int, ...] = (),
        environment: Mapping[str, str] | None = None,
        mounts: tuple[Mount, ...] = (),
        files: Mapping[str, str] | None = None,
        alone: bool = False,
        needs: tuple[str, ...] = (),
        alias: str = "",
    ) -> Container:
        """One of the server's containers.

        ports   what it listens on
        alone   it has no other ranks to wait for (Ray has them)
        needs   a command that must succeed before the engine is started
        alias   another path at which the engine finds the model
        """
        return self._make(
            "server",
            node,
            command,
            runner=(*self._together(node, alone, needs), *self._asked(node), *option("--alias", alias), "--"),
            ports=ports,
            environment=environment,
            mounts=mounts,
            files={
                TOGETHER: inside("together.py"),
                **({PULSE: inside("pulse.py")} if self._asked(node) else {}),
                **(files or {}),
            },
            restart="on-failure",
            retries=CRASHES,
        )

    def _directory(self) -> tuple[Mount, ...]:
        """A model that is a directory of its own, where it is on the Spark too."""
        path = self._context.model.path
        return (Mount(path, path, read_only=True),) if path else ()

    def _compiled(self) -> tuple[Mount, ...]:
        settings = self._context.settings
        if not settings.serving.compile_cache:
            return ()
        return (compiled.mount(None if on_ray(settings) else self._context.model),)

    def _together(self, node: str, alone: bool, needs: tuple[str, ...]) -> tuple[str, ...]:
        """The command line of inside/together.py, up to the engine's own."""
        context, serving = self._context, self._context.settings.serving
        nodes = [node] if alone else [n.name for n in context.settings.nodes]
        return (
            "python3",
            TOGETHER,
            f"--rank={nodes.index(node)}",
            f"--names={','.join(nodes)}",
            *([f"--address={context.links[nodes[0]].address}:{RANKS}", f"--key={RANK_KEY}"] if nodes[1:] else []),
            f"--restarts={serving.restarts}",
            f"--health=http://{serving.local_host}:{context.port}/health",
            *([f"--needs={shlex.join(needs)}"] if needs else []),
            f"--weights={snapshot_directory(HF_HOME, context.model)}",
            *([f"--compiled={compiled.DIRECTORY}"] if serving.compile_cache else []),
            f"--drain={DRAIN}",
        )

    def _asked(self, node: str) -> tuple[str, ...]:
        """What rank 0 asks its engine, to see whether it works (inside/pulse.py)."""
        context, settings = self._context, self._context.settings
        if node != settings.head.name or not asked(settings):
            return ()
        path, body = SMALLEST[context.task]
        question = {
            "base": f"http://{settings.serving.local_host}:{context.port}",
            "path": path,
            "body": {"model": context.served_name, **body},
            "limit": settings.serving.stuck_after,
            "key_file": context.api_key_file if settings.api_key.get_secret_value() else "",
        }
        return (f"--ask={json.dumps(question)}",)

    def _make(
        self,
        role: str,
        node: str,
        command: tuple[str, ...],
        *,
        ports: tuple[int, ...],
        environment: Mapping[str, str] | None = None,
        mounts: tuple[Mount, ...] = (),
        files: Mapping[str, str] | None = None,
        runner: tuple[str, ...] = (),
        restart: str,
        retries: int = 0,
    ) -> Container:
        settings, identity = self._context.settings, self._context.identity
        rank = [n.name for n in settings.nodes].index(node)
        facts, link = self._context.facts[node], self._context.links.get(node)
        hidden = settings.serving.env if settings.is_encrypted("serving") else {}
        shown = {} if hidden else settings.serving.env
        return Container(
            name=identity.container(role),
            node=node,
            component=role,
            rank=rank,
            runner=(*(("python3", WITH_ENVIRONMENT, SECRET_ENVIRONMENT) if hidden else ()), *runner),
            command=command,
            entrypoint=entrypoint(self.image),
            environment={
                **ALWAYS,
                **(compiled.environment(settings) if settings.serving.compile_cache else {}),
                **({"TIKTOKEN_ENCODINGS_BASE": VOCABULARIES} if needs_encodings(self._context.model) else {}),
                **self._environments[node],
                **(environment or {}),
                **self._context.known.env,
                **shown,
            },
            mounts=(
                Mount(facts.cache.path, HF_HOME, read_only=True),
                *self._directory(),
                *self._compiled(),
                *mounts,
            ),
            files={**({WITH_ENVIRONMENT: inside("environment.py")} if hidden else {}), **(files or {})},
            labels={
                "dgx-spark.project": identity.project,
                "dgx-spark.stack": identity.full,
                "dgx-spark.component": role,
                "dgx-spark.rank": str(rank),
                # Tells our own listeners from strangers' (checks.ports).
                **({"dgx-spark.ports": ",".join(map(str, ports))} if ports else {}),
            },
            restart=restart,
            retries=retries,
            grace=GRACE,
            rdma=bool(link and link.hcas and facts.infiniband_device),
            privileged=settings.containers.privileged,
            capabilities=self._capabilities,
            shm_size=settings.containers.shm_size or SHM_SIZE,
            own_shm=settings.containers.shm_size is not None,
            secrets=_secrets(settings),
            secret_files={SECRET_ENVIRONMENT: json.dumps(hidden, sort_keys=True)} if hidden else {},
        )


def _secrets(settings: Settings) -> tuple[str, ...]:
    """`pulumi config set --secret --path serving.env.TOKEN` encrypts a part of `serving`, and Pulumi does not say
    which: all that users write freely there is kept secret then; its variables are in a file."""
    return tuple(sorted({*settings.serving.extra_args} - {""})) if settings.is_encrypted("serving") else ()
