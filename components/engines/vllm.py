"""vLLM: one Spark alone, or several joined by Ray.

Command line: `vllm serve` of vLLM 0.12 and later. Default image: NVIDIA's container 26.04 (vLLM 0.19,
CUDA 13.2, built for GB10), which has no Ray, so Ray is added to it (engine_image.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from components.catalog import Entry
from components.engines import Context, EnginePlan
from components.environment import SINGLE_NODE, communication, ray_node
from components.plan import Container, Image, Mount, Ray, Readiness, snapshot_directory
from components.settings import Settings

IMAGE = "nvcr.io/nvidia/vllm:26.04-py3"

HF_HOME = "/root/.cache/huggingface"
"""Where the weights are in every container."""

NOT_CARRIED = "/root/.config/vllm/ray_non_carry_over_env_vars.json"
"""vLLM copies the driver's NCCL_*, UCX_* and VLLM_* variables to its Ray workers, except those named in this
file (below VLLM_CONFIG_ROOT). Without it the head's ports and GID index end up on every Spark.
Source: vllm/ray/ray_env.py."""

API_KEY_FILE = "/run/api-key"
READ_API_KEY = f'VLLM_API_KEY="$(cat {API_KEY_FILE})" exec "$@"'
"""The key must show neither in argv nor in the container's environment, which `docker inspect` prints."""

OBJECT_STORE = 1 << 30
"""Bytes of Ray's object store. vLLM passes little through it, and GB10's memory is needed for weights.
Source: eugr/spark-vllm-docker, Ray mode."""

SERVER_RETRIES = 3
GRACE = 30
"""Seconds for a server to end its requests; a remote rank of vLLM takes about 11 (measured, vLLM 0.32)."""


def split(settings: Settings, config: Mapping[str, object]) -> tuple[int, int]:
    """(tensor parallel, pipeline parallel) over all Sparks, one GPU each.

    Unless set: tensor parallel over all, or pipeline parallel where the attention heads can't be divided.
    """
    gpus = len(settings.nodes)
    tensor, pipeline = settings.serving.tensor_parallel, settings.serving.pipeline_parallel
    if tensor is None and pipeline is None:
        heads = attention_heads(config)
        return (gpus, 1) if heads is None or heads % gpus == 0 else (1, gpus)
    if tensor is None:
        assert pipeline is not None
        return max(1, gpus // pipeline), pipeline
    return tensor, pipeline if pipeline is not None else max(1, gpus // tensor)


def attention_heads(config: Mapping[str, object]) -> int | None:
    """From config.json; models with vision keep it in `text_config`."""
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads") if isinstance(text, Mapping) else None
    return heads if isinstance(heads, int) else None


def plan(context: Context) -> EnginePlan:
    settings = context.settings
    image = settings.image.name or IMAGE
    multi = len(settings.nodes) > 1
    ranks = {
        node.name: (
            {**communication(context.links[node.name]), **ray_node(context.links[node.name])} if multi else SINGLE_NODE
        )
        for node in settings.nodes
    }
    served = settings.serving.served_model_name or context.model.repo
    make = _ContainerMaker(context, ranks, entrypoint(image))
    ray = _ray(context, make) if multi else None
    readiness = Readiness(
        port=settings.serving.port,
        model=served,
        timeout=settings.serving.startup_timeout,
        containers=_watched(context, multi),
    )
    return EnginePlan(
        image=Image(image, settings.ray.version if multi else None),
        ray=ray,
        server=_server(context, make, ranks, served),
        readiness=readiness,
        served_name=served,
        environment=ranks,
    )


def entrypoint(image: str) -> tuple[str, ...] | None:
    """NVIDIA's entrypoint sets up CUDA's forward compatibility and runs its arguments: kept. Others may be
    `vllm serve` itself (vllm/vllm-openai), so they are replaced by a program that only runs its arguments."""
    return None if image.startswith("nvcr.io/nvidia/") else ("/usr/bin/env",)


def _watched(context: Context, multi: bool) -> dict[str, tuple[str, ...]]:
    name = context.identity.container
    head, *others = [node.name for node in context.settings.nodes]
    if not multi:
        return {head: (name("server"),)}
    return {head: (name("server"), name("ray-head")), **{node: (name("ray-worker"),) for node in others}}


class _ContainerMaker:
    """Fills in what all of an engine's containers share."""

    def __init__(self, context: Context, ranks: Mapping[str, Mapping[str, str]], entry: tuple[str, ...] | None) -> None:
        self._context, self._ranks, self._entry = context, ranks, entry

    def make(
        self,
        role: str,
        node: str,
        command: tuple[str, ...],
        *,
        environment: Mapping[str, str] | None = None,
        mounts: tuple[Mount, ...] = (),
        files: Mapping[str, str] | None = None,
        restart: str = "unless-stopped",
        retries: int = 0,
    ) -> Container:
        settings, identity = self._context.settings, self._context.identity
        rank = [n.name for n in settings.nodes].index(node)
        facts = self._context.facts[node]
        return Container(
            name=identity.container(role),
            node=node,
            component=role,
            rank=rank,
            command=command,
            entrypoint=self._entry,
            environment={
                "NVIDIA_DRIVER_CAPABILITIES": "all",
                "HF_HOME": HF_HOME,
                # Weights are in place and verified: nothing may be fetched, and no token is needed.
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                **self._ranks[node],
                **(environment or {}),
                **settings.serving.env,
            },
            mounts=(Mount(facts.cache.path, HF_HOME, read_only=True), *mounts),
            files=files or {},
            labels={
                "dgx-spark.project": identity.project,
                "dgx-spark.stack": identity.full,
                "dgx-spark.component": role,
                "dgx-spark.rank": str(rank),
            },
            restart=restart,
            retries=retries,
            grace=GRACE,
            rdma=bool(self._context.links.get(node) and self._context.links[node].hcas and facts.infiniband_device),
            privileged=settings.containers.privileged,
            shm_size=settings.containers.shm_size,
        )


def _ray(context: Context, make: _ContainerMaker) -> Ray:
    settings, links = context.settings, context.links
    head, *others = [node.name for node in settings.nodes]
    common = (
        "--num-gpus=1",
        "--num-cpus=2",
        f"--object-store-memory={OBJECT_STORE}",
        "--disable-usage-stats",
        "--block",
    )
    address = f"{links[head].address}:{settings.ray.port}"
    volume = context.identity.container("ray-session")
    start = (
        "ray",
        "start",
        "--head",
        f"--node-ip-address={links[head].address}",
        f"--port={settings.ray.port}",
        "--include-dashboard=true",
        f"--dashboard-host={settings.ray.dashboard_host}",
        f"--dashboard-port={settings.ray.dashboard_port}",
        *common,
    )
    return Ray(
        head=make.make("ray-head", head, start, mounts=(Mount(volume, "/tmp/ray"),)),
        workers=tuple(
            make.make(
                "ray-worker",
                node,
                ("ray", "start", f"--address={address}", f"--node-ip-address={links[node].address}", *common),
            )
            for node in others
        ),
        volume=volume,
        addresses=tuple(links[node.name].address for node in settings.nodes),
        port=settings.ray.port,
        dashboard=f"http://{settings.ray.dashboard_host}:{settings.ray.dashboard_port}",
    )


def _server(context: Context, make: _ContainerMaker, ranks: Mapping[str, Mapping[str, str]], served: str) -> Container:
    settings = context.settings
    head = settings.head.name
    multi = len(settings.nodes) > 1
    command = ("vllm", "serve", *arguments(context, served))
    environment: dict[str, str] = {}
    files: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    if settings.api_key.get_secret_value():
        command = ("sh", "-c", READ_API_KEY, "sh", *command)
    if multi:
        own = sorted({name for rank in ranks.values() for name in rank})
        files[NOT_CARRIED] = json.dumps(own)
        environment["RAY_ADDRESS"] = f"{context.links[head].address}:{settings.ray.port}"
        mounts = (Mount(context.identity.container("ray-session"), "/tmp/ray"),)
    return make.make(
        "server",
        head,
        command,
        environment=environment,
        mounts=mounts,
        files=files,
        restart="on-failure",
        retries=SERVER_RETRIES,
    )


def arguments(context: Context, served: str) -> tuple[str, ...]:
    """What follows `vllm serve`."""
    settings, entry = context.settings, context.entry
    serving = settings.serving
    tensor, pipeline = split(settings, context.model.config)
    words = [
        snapshot_directory(HF_HOME, context.model),
        f"--served-model-name={served}",
        f"--host={serving.host}",
        f"--port={serving.port}",
        f"--tensor-parallel-size={tensor}",
        f"--pipeline-parallel-size={pipeline}",
    ]
    if len(settings.nodes) > 1:
        words.append("--distributed-executor-backend=ray")
    length = serving.max_model_len if serving.max_model_len is not None else entry and entry.max_model_len
    if length:
        words.append(f"--max-model-len={length}")
    share = serving.gpu_memory_utilization
    share = share if share is not None else entry.gpu_memory_utilization if entry else None
    if share is not None:
        words.append(f"--gpu-memory-utilization={share}")
    if serving.expert_parallel:
        words.append("--enable-expert-parallel")
    if serving.trust_remote_code if serving.trust_remote_code is not None else entry and entry.trust_remote_code:
        words.append("--trust-remote-code")
    return (*words, *_parsers(settings, entry), *serving.extra_args)


def _parsers(settings: Settings, entry: Entry | None) -> list[str]:
    reasoning = settings.serving.reasoning_parser or (entry.reasoning_parser if entry else None)
    tools = settings.serving.tool_call_parser or (entry.tool_call_parser if entry else None)
    words = [f"--reasoning-parser={reasoning}"] if reasoning else []
    return [*words, "--enable-auto-tool-choice", f"--tool-call-parser={tools}"] if tools else words
