"""TensorRT-LLM: one rank per Spark, started by MPI, as Swarm services or (`serving.launcher: mpi`) containers.

Command line: `trtllm-serve` of TensorRT-LLM 1.2. Its options have underscores. Only rank 0 serves HTTP. The
services sit on the host network: an overlay network hides the RoCE GIDs, and all traffic would go by Ethernet.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace

from components import ports
from components.facts.fabric import NodeLink
from components.plan.engines import Context, EnginePlan
from components.plan.engines.common import (
    SSHD,
    ContainerMaker,
    choose,
    draft_directory,
    more_arguments,
    option,
    rank_environments,
    split,
    together,
    wanted,
)
from components.plan.steps import inside
from components.plan.values import Container, Image

IMAGE = (
    "nvcr.io/nvidia/tensorrt-llm/release:1.2.1@sha256:33cd085b772947bd22b7273886539331420404e5d2a4a039945241945ff927b9"
)
PORT = ports.TRTLLM

MPI = "/opt/dgx-spark/mpi.py"
"""Where a rank's container has components/inside/mpi.py."""

OPTIONS = "/opt/dgx-spark/options.yaml"
"""The LLM API's options. Source: `trtllm-serve --help`, --extra_llm_api_options."""

KV_SHARE = 0.9
"""Of the memory that is free after the weights. Source: `trtllm-serve --help`, --kv_cache_free_gpu_memory_fraction."""

MPI_DAEMONS, MPI_RANKS = ports.MPI_PORTS[:4], ports.MPI_PORTS[4:]
"""A daemon listens on every port that it is given, by IPv4 and IPv6 on different ones; a rank on the first free one.
Seen with Open MPI 4.1.8."""

MAX_NUM_TOKENS = 8192
"""Tokens of all requests in one step: a budget, not the context's length. Source: TensorRT-LLM's own default."""

MAX_BATCH_SIZE = 4
"""Requests in one step. Source: NVIDIA's TensorRT-LLM recipe for two Sparks."""


def plan(context: Context) -> EnginePlan:
    environments = rank_environments(context)
    for name, link in context.links.items():
        environments[name] |= mpi_environment(link)
    several = len(context.settings.nodes) > 1
    make = ContainerMaker(context, environments, IMAGE, SSHD if several else ())
    swarm = several and context.settings.serving.launcher == "swarm"
    ranks = tuple(_rank(context, make, rank) for rank in range(len(context.settings.nodes)))
    if swarm:
        ranks = tuple(replace(rank, environment={**rank.environment, **nvidia_runtime(rank)}) for rank in ranks)
    return EnginePlan(
        image=Image(make.image, sshd=several),
        ray=None,
        ranks=together(ranks),
        environment=environments,
        swarm=swarm,
    )


def mpi_environment(link: NodeLink) -> dict[str, str]:
    """Open MPI gives rank 0's own settings to all ranks, whose devices may be called otherwise: so a subnet. It listens
    by both families of IP, and on every address, whatever one says: so its ports are named (`./spark setup-guard`)."""
    subnet = str(ipaddress.ip_interface(f"{link.address}/{link.prefix}").network)
    return {
        "OMPI_MCA_btl_tcp_if_include": subnet,
        "OMPI_MCA_oob_tcp_if_include": subnet,
        "OMPI_MCA_oob_tcp_dynamic_ipv4_ports": f"{MPI_DAEMONS[0]}-{MPI_DAEMONS[-2]}",
        "OMPI_MCA_oob_tcp_dynamic_ipv6_ports": str(MPI_DAEMONS[-1]),
        **{f"OMPI_MCA_btl_tcp_port_min_v{family}": str(MPI_RANKS[0]) for family in (4, 6)},
        **{f"OMPI_MCA_btl_tcp_port_range_v{family}": str(len(MPI_RANKS)) for family in (4, 6)},
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def nvidia_runtime(rank: Container) -> dict[str, str]:
    """A Swarm service can't name devices: the NVIDIA runtime brings /dev/infiniband in.
    Source: nvidia-container-toolkit, NVIDIA_MOFED."""
    return {"NVIDIA_MOFED": "enabled"} if rank.rdma else {}


def _rank(context: Context, make: ContainerMaker, rank: int) -> Container:
    nodes = [node.name for node in context.settings.nodes]
    files = {OPTIONS: options(context)}
    serve = ("trtllm-serve", *arguments(context))
    alias = _directory(context)
    if len(nodes) == 1:
        return make.rank(nodes[0], serve, ports=(context.port,), files=files, alias=alias)
    files[MPI] = inside("mpi.py")
    if rank:
        own, head = (context.links[nodes[number]].address for number in (rank, 0))
        listen = ("listen", f"--address={own}", f"--port={ports.MPI_SSH}", f"--head={head}")
        return make.rank(nodes[rank], ("python3", MPI, *listen), ports=(ports.MPI_SSH,), files=files, alias=alias)
    hosts = ",".join(context.links[node].address for node in nodes)
    run = ("python3", MPI, "run", f"--hosts={hosts}", f"--port={ports.MPI_SSH}", "--", "trtllm-llmapi-launch")
    return make.rank(nodes[0], (*run, *serve), ports=(context.port, ports.RANKS), files=files, alias=alias)


def _directory(context: Context) -> str:
    """A link to the model in the container, since trtllm-serve serves it under its directory's name. A mount would
    not do: a snapshot's files are links to others, and those may be links out of the model's own folder."""
    return f"/models/{context.served_name}"


def options(context: Context) -> str:
    """JSON, which is YAML too. What stands here wins over the command line."""
    share = wanted(context.settings, context.known).memory_share or KV_SHARE
    return json.dumps(
        {
            "print_iter_log": False,
            "kv_cache_config": {"dtype": "auto", "free_gpu_memory_fraction": share},
            "cuda_graph_config": {"enable_padding": True},
            **speculation(context),
        },
        indent=1,
    )


DECODING = {"mtp": "MTP", "eagle": "Eagle", "eagle3": "Eagle", "draft_model": "DraftTarget", "ngram": "NGram"}
"""Source: TensorRT-LLM's documentation, "Speculative Decoding"; NVIDIA's playbook for it on Sparks."""


def speculation(context: Context) -> dict[str, object]:
    draft = context.draft
    if draft is None:
        return {}
    count = "num_nextn_predict_layers" if draft.method == "mtp" else "max_draft_len"
    directory = draft_directory(context)
    model = {"speculative_model_dir": directory} if directory else {}
    return {"speculative_config": {"decoding_type": DECODING[draft.method], count: draft.tokens, **model}}


def api_key_file(key: str) -> str:
    """trtllm-serve asks for no key, and a stack that wants one is refused (checks.engine)."""
    return ""


def arguments(context: Context) -> tuple[str, ...]:
    """What follows `trtllm-serve` on every rank. Words must hold no blanks: trtllm-llmapi-launch splits them."""
    settings, serving = context.settings, context.settings.serving
    known = context.known
    tensor, pipeline = split(settings, context.model.geometry)
    want = wanted(settings, known)
    own = settings.trtllm
    return (
        _directory(context),
        f"--host={serving.host}",
        f"--port={context.port}",
        f"--backend={choose(own.backend, known.backend) or 'pytorch'}",
        f"--tp_size={tensor}",
        f"--pp_size={pipeline}",
        *([f"--ep_size={tensor}"] if want.expert_parallel and tensor > 1 else []),
        *option("--max_seq_len", want.length),
        f"--max_num_tokens={choose(own.max_num_tokens, known.max_num_tokens) or MAX_NUM_TOKENS}",
        f"--max_batch_size={choose(own.max_batch_size, known.max_batch_size) or MAX_BATCH_SIZE}",
        *(["--trust_remote_code"] if want.trust_remote_code else []),
        *option("--reasoning_parser", want.reasoning_parser),
        *option("--tool_parser", want.tool_call_parser),
        f"--extra_llm_api_options={OPTIONS}",
        *more_arguments(context),
    )
