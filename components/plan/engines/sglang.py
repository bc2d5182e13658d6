"""SGLang: one `sglang.launch_server` per Spark, joined by torch's rendezvous on the fabric; no Ray.

Command line: SGLang 0.5. Only rank 0 serves HTTP; the others join it. `--disable-cuda-graph` and
`--enable-dp-attention` of older recipes are not passed: the first is deprecated and slows GB10 down by
half, the second is switched off again by SGLang where there is one data-parallel rank.
"""

from __future__ import annotations

import json

from components import ports
from components.plan.engines import Context, EnginePlan
from components.plan.engines.common import (
    HF_HOME,
    PREFETCH,
    ContainerMaker,
    asked,
    draft_directory,
    more_arguments,
    option,
    rank_environments,
    split,
    startup_limit,
    together,
    wanted,
)
from components.plan.models import snapshot_directory
from components.plan.values import Container, Image

IMAGE = "lmsysorg/sglang:v0.5.21@sha256:b1259f3ea3275f66237c498ea388919729018bc9f01c3d638391e06e2cf3f469"
PORT = ports.SGLANG


def plan(context: Context) -> EnginePlan:
    environments = rank_environments(context)
    for name, link in context.links.items():
        environments[name] |= own_address(link.address)
    make = ContainerMaker(context, environments, IMAGE)
    ranks = together(tuple(_rank(context, make, rank) for rank in range(len(context.settings.nodes))))
    return EnginePlan(image=Image(make.image), ray=None, ranks=ranks, environment=environments)


def own_address(address: str) -> dict[str, str]:
    """Without it a rank announces the address of its default route, Wi-Fi in most homes, for the queue that stands
    beside NCCL and Gloo; the other ranks wait for it without end. Source: srt/utils/network.py, get_local_ip_auto;
    older versions read HOST_IP."""
    return {"SGLANG_HOST_IP": address, "HOST_IP": address}


def _rank(context: Context, make: ContainerMaker, rank: int) -> Container:
    command = ("python3", "-m", "sglang.launch_server", *arguments(context), *_rendezvous(context, rank))
    if context.settings.api_key.get_secret_value() and rank == 0:
        # In argv anybody on the Spark would read it. As one word, `--config=FILE`, SGLang takes it for an option and
        # never reads the file. Source: prepare_server_args, srt/server_args.py.
        command = (*command, "--config", context.api_key_file)
    several = len(context.settings.nodes) > 1
    listens = (context.port, ports.SGLANG_RENDEZVOUS, ports.RANKS) if several else (context.port,)
    return make.rank(context.settings.nodes[rank].name, command, ports=listens if rank == 0 else ())


def _rendezvous(context: Context, rank: int) -> tuple[str, ...]:
    settings = context.settings
    if len(settings.nodes) == 1:
        return ()
    head = context.links[settings.head.name].address
    return (
        f"--nnodes={len(settings.nodes)}",
        f"--node-rank={rank}",
        f"--dist-init-addr={head}:{ports.SGLANG_RENDEZVOUS}",
        # A rank that never joins is a failure with a name, not a wait without end.
        f"--dist-timeout={startup_limit(context)}",
    )


def api_key_file(key: str) -> str:
    """Content of the file that holds the key: a YAML of SGLang's own options."""
    return json.dumps({"api-key": key})


def arguments(context: Context) -> tuple[str, ...]:
    """What follows `sglang.launch_server` on every rank."""
    settings = context.settings
    serving = settings.serving
    tensor, pipeline = split(settings, context.model.geometry)
    want = wanted(settings, context.known)
    return (
        f"--model-path={snapshot_directory(HF_HOME, context.model)}",
        f"--served-model-name={context.served_name}",
        f"--host={serving.host}",
        f"--port={context.port}",
        f"--tp-size={tensor}",
        f"--pp-size={pipeline}",
        *([f"--ep-size={tensor}"] if want.expert_parallel and tensor > 1 else []),
        *option("--context-length", want.length),
        *option("--mem-fraction-static", want.memory_share),
        *(["--trust-remote-code"] if want.trust_remote_code else []),
        *(["--enable-metrics"] if settings.monitoring or asked(settings) else []),
        *(["--is-embedding"] if context.task == "embed" else []),
        *option("--reasoning-parser", want.reasoning_parser),
        *option("--tool-call-parser", want.tool_call_parser),
        *(
            ["--weight-loader-prefetch-checkpoints"]
            if want.loader == PREFETCH
            else option("--load-format", want.loader)
        ),
        *speculation(context),
        *more_arguments(context),
    )


ALGORITHMS = {
    "mtp": "NEXTN", "eagle": "EAGLE", "eagle3": "EAGLE3", "dflash": "DFLASH", "dspark": "DSPARK",
    "draft_model": "STANDALONE", "ngram": "NGRAM",
}  # fmt: skip
"""Source: SGLang's documentation, "Speculative Decoding"."""

BLOCKS = ("dflash", "dspark")
"""Methods that guess a block at once; the others guess one token after the other."""


def speculation(context: Context) -> tuple[str, ...]:
    """A chain of guesses. SGLang counts the token that the model itself adds, vLLM does not."""
    draft = context.draft
    if draft is None:
        return ()
    chain = (f"--speculative-num-steps={draft.tokens}", "--speculative-eagle-topk=1")
    return (
        f"--speculative-algorithm={ALGORITHMS[draft.method]}",
        *option("--speculative-draft-model-path", draft_directory(context)),
        *(() if draft.method in BLOCKS else chain),
        f"--speculative-num-draft-tokens={draft.tokens + 1}",
    )
