"""vLLM: one Spark alone, or several joined by torch's own rendezvous (`serving.executor: mp`) or by Ray (`ray`).

Command line: `vllm serve` of vLLM 0.19 to 0.32. NVIDIA's container has no Ray: it is added for the executor that needs
it (engine_image.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from components import catalog, ports
from components.facts.fabric import NodeLink
from components.plan.engines import Context, EnginePlan
from components.plan.engines.common import (
    DRAIN,
    HF_HOME,
    PREFETCH,
    ContainerMaker,
    Environments,
    chosen_image,
    draft_directory,
    more_arguments,
    on_ray,
    option,
    rank_environments,
    split,
    together,
    wanted,
)
from components.plan.engines.flags import version
from components.plan.environment import RAY_FOLDER, ray_node
from components.plan.models import snapshot_directory
from components.plan.steps import inside
from components.plan.values import Container, Image, Mount, Ray

IMAGE = "nvcr.io/nvidia/vllm:26.10-py3"
PORT = ports.VLLM

NOT_CARRIED = "/root/.config/vllm/ray_non_carry_over_env_vars.json"
"""vLLM copies the driver's NCCL_*, UCX_* and VLLM_* variables to its Ray workers, except those named in this
file (below VLLM_CONFIG_ROOT). Without it the head's ports and GID index end up on every Spark.
Source: vllm/ray/ray_env.py."""

RAY_READY = "/opt/dgx-spark/ray_ready.py"
"""Where the driver's container has components/inside/ray_ready.py."""

RAY_REJOIN = 180
"""Seconds for all Sparks to be in Ray before the driver starts; up to 60 after a head alone was replaced."""

READ_API_KEY = 'VLLM_API_KEY="$(cat {file})" exec "$@"'
"""The key must show neither in argv nor in the container's environment, which `docker inspect` prints."""

OBJECT_STORE = 1 << 30
"""Bytes of Ray's object store. vLLM passes little through it, and GB10's memory is needed for weights.
Source: eugr/spark-vllm-docker, Ray mode."""


def plan(context: Context) -> EnginePlan:
    ray = on_ray(context.settings)
    environments = rank_environments(context)
    for name, link in context.links.items():
        environments[name] |= ray_node(link) if ray else {"VLLM_HOST_IP": link.address}
    make = ContainerMaker(context, environments, IMAGE)
    return EnginePlan(
        image=Image(make.image, context.settings.ray.version if ray else None),
        ray=_ray(context, make) if ray else None,
        ranks=(_driver(context, make, environments),) if ray else _ranks(context, make),
        environment=environments,
    )


def _ray(context: Context, make: ContainerMaker) -> Ray:
    settings, links = context.settings, context.links
    head, *others = [node.name for node in settings.nodes]
    board = settings.ray if settings.ray.dashboard else None
    as_head = [f"--port={settings.ray.port}", f"--include-dashboard={'true' if board else 'false'}"]
    if board:
        as_head += [f"--dashboard-host={board.dashboard_host}", f"--dashboard-port={board.dashboard_port}"]
    address = f"--address={links[head].address}:{settings.ray.port}"
    return Ray(
        head=make.service(
            "ray-head",
            head,
            _start("--head", links[head], as_head),
            ports=(settings.ray.port, *([board.dashboard_port] if board else []), *ports.RAY_AGENTS),
            mounts=(_session(context),),
        ),
        workers=tuple(
            make.service("ray-worker", node, _start(address, links[node]), ports=tuple(ports.RAY_AGENTS))
            for node in others
        ),
        volume=_session(context).source,
        addresses=tuple(links[node.name].address for node in settings.nodes),
        port=settings.ray.port,
        dashboard=f"http://{board.dashboard_host}:{board.dashboard_port}" if board else None,
    )


OWN_PORTS = (
    *(
        f"--{name}-port={port}"
        for name, port in zip(
            (
                "node-manager",
                "object-manager",
                "runtime-env-agent",
                "dashboard-agent-grpc",
                "dashboard-agent-listen",
                "metrics-export",
                "ray-client-server",
            ),
            ports.RAY_AGENTS,
            strict=True,
        )
    ),
    f"--min-worker-port={ports.RAY_WORKERS[0]}",
    f"--max-worker-port={ports.RAY_WORKERS[-1]}",
)
"""Known ports can be closed (`./spark setup-guard`), and nothing waits for them: where an agent chooses its own, the
raylet waits 15 s for it to say which, and Ray's client server 30 s, and then the node ends. A Spark that reads its
image for the first time may take longer. Source: Ray 2.55, src/ray/raylet/node_manager.cc, WaitForDashboardAgentPorts;
ray/_private/services.py, get_node_with_retry."""


def _start(role: str, link: NodeLink, words: Sequence[str] = ()) -> tuple[str, ...]:
    """`role`: that it is the head, or where the head is."""
    every = (
        "--num-gpus=1",
        "--num-cpus=2",
        f"--object-store-memory={OBJECT_STORE}",
        "--disable-usage-stats",
        *OWN_PORTS,
        "--block",
    )
    return ("ray", "start", role, f"--node-ip-address={link.address}", *words, *every)


def _session(context: Context) -> Mount:
    return Mount(context.identity.container("ray-session"), RAY_FOLDER)


def _driver(context: Context, make: ContainerMaker, environments: Environments) -> Container:
    """API server and driver on the head; the ranks themselves are Ray's."""
    head = context.settings.head.name
    address = f"{context.links[head].address}:{context.settings.ray.port}"
    backend = ["--distributed-executor-backend=ray"]
    if context.settings.serving.data_parallel > 1:
        backend.append("--data-parallel-backend=ray")
    own = sorted({name for environment in environments.values() for name in environment})
    return make.rank(
        head,
        with_api_key(context, ("vllm", "serve", *arguments(context), *backend)),
        ports=(context.port,),
        environment={"RAY_ADDRESS": address},
        mounts=(_session(context),),
        files={NOT_CARRIED: json.dumps(own), RAY_READY: inside("ray_ready.py"), **_prompt(context)},
        alone=True,
        # vLLM that is started before all have joined hangs, or fails for want of GPUs.
        needs=(
            "python3",
            RAY_READY,
            f"--weights={snapshot_directory(HF_HOME, context.model)}",
            address,
            str(RAY_REJOIN),
            *(link.address for link in context.links.values()),
        ),
    )


def _ranks(context: Context, make: ContainerMaker) -> tuple[Container, ...]:
    """One `vllm serve` per Spark; only the first serves HTTP, the others are headless."""
    nodes = [node.name for node in context.settings.nodes]
    made = []
    for rank, node in enumerate(nodes):
        command = ("vllm", "serve", *arguments(context), *_rendezvous(context, rank))
        if rank == 0:
            listens = (context.port, ports.VLLM_RENDEZVOUS, ports.RANKS) if len(nodes) > 1 else (context.port,)
            made.append(make.rank(node, with_api_key(context, command), ports=listens, files=_prompt(context)))
        else:
            made.append(make.rank(node, command, files=_prompt(context)))
    return together(tuple(made))


def _rendezvous(context: Context, rank: int) -> tuple[str, ...]:
    count = len(context.settings.nodes)
    if count == 1:
        return ()
    head = context.links[context.settings.head.name].address
    if context.settings.serving.data_parallel > 1:
        copies = (
            "--data-parallel-size-local=1",
            f"--data-parallel-address={head}",
            f"--data-parallel-rpc-port={ports.VLLM_RENDEZVOUS}",
        )
        return copies if rank == 0 else (*copies, "--headless", f"--data-parallel-start-rank={rank}")
    words = (
        "--distributed-executor-backend=mp",
        f"--nnodes={count}",
        f"--node-rank={rank}",
        f"--master-addr={head}",
        f"--master-port={ports.VLLM_RENDEZVOUS}",
    )
    return words if rank == 0 else (*words, "--headless")


CHAT_TEMPLATE = "/opt/dgx-spark/chat-template.jinja"
"""Where a rank's container has the catalog's prompt for the model."""


def _pooling(context: Context) -> tuple[str, ...]:
    """For embeddings and scores in place of text. Source: vLLM's documentation, "Pooling Models"."""
    known = context.known
    overrides = json.dumps(known.hf_overrides) if known.hf_overrides else None
    template = CHAT_TEMPLATE if known.chat_template else None
    return ("--runner=pooling", *option("--hf-overrides", overrides), *option("--chat-template", template))


def _prompt(context: Context) -> dict[str, str]:
    name = context.known.chat_template
    return {CHAT_TEMPLATE: catalog.prompt(name)} if name else {}


def api_key_file(key: str) -> str:
    """Content of the file that holds the key: the key alone (READ_API_KEY)."""
    return key


def with_api_key(context: Context, command: tuple[str, ...]) -> tuple[str, ...]:
    if not context.settings.api_key.get_secret_value():
        return command
    return ("sh", "-c", READ_API_KEY.format(file=context.api_key_file), "sh", *command)


def arguments(context: Context) -> tuple[str, ...]:
    """What follows `vllm serve` on every rank."""
    settings = context.settings
    serving = settings.serving
    tensor, pipeline = split(settings, context.model.geometry)
    want = wanted(settings, context.known)
    return (
        snapshot_directory(HF_HOME, context.model),
        f"--served-model-name={context.served_name}",
        f"--host={serving.host}",
        f"--port={context.port}",
        f"--tensor-parallel-size={tensor}",
        f"--pipeline-parallel-size={pipeline}",
        *([f"--data-parallel-size={serving.data_parallel}"] if serving.data_parallel > 1 else []),
        *option("--max-model-len", want.length),
        *option("--gpu-memory-utilization", want.memory_share),
        # One GPU holds all experts anyway.
        *(["--enable-expert-parallel"] if want.expert_parallel and len(settings.nodes) > 1 else []),
        *(
            ["--safetensors-load-strategy=prefetch"]
            if want.loader == PREFETCH
            else option("--load-format", want.loader)
        ),
        *(["--trust-remote-code"] if want.trust_remote_code else []),
        *(_pooling(context) if context.task != "generate" else []),
        *option("--reasoning-parser", want.reasoning_parser),
        *(["--enable-auto-tool-choice"] if want.tool_call_parser else []),
        *option("--tool-call-parser", want.tool_call_parser),
        *speculation(context),
        *_draining(context),
        *more_arguments(context),
    )


def _draining(context: Context) -> tuple[str, ...]:
    """Without it, a server that is told to end breaks its answers off. An image whose tag tells no version may be
    older than the option. Source: vLLM pull request 36666, in 0.18."""
    has = version("vllm", chosen_image(context.settings, context.known, IMAGE))
    return (f"--shutdown-timeout={DRAIN}",) if has and (0, 18) <= has < (1,) else ()


def speculation(context: Context) -> tuple[str, ...]:
    """Source: vLLM's documentation, "Speculative Decoding"."""
    draft = context.draft
    if draft is None:
        return ()
    model = draft_directory(context)
    config = {
        "method": draft.method,
        **({"model": model} if model else {}),
        "num_speculative_tokens": draft.tokens,
        **draft.options,
    }
    return (f"--speculative-config={json.dumps(config)}",)
