"""What an engine's log says → what to do, as patterns. Standard library only.

Sources of the texts: vLLM 0.19 and 0.31 (v1/core/kv_cache_utils.py, v1/worker/utils.py, config/model.py,
model_executor/models/registry.py), SGLang 0.5.23 (srt/models/registry.py, layers/quantization/fp8_utils.py), NCCL 2.19
to 2.29 (src/misc/ibvwrap.cc, src/transport/net_ib.cc). Sources of the remedies: the troubleshooting tables and issues
of the projects for Spark clusters; NVIDIA/nccl issues 426, 902 and 2013.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hint:
    pattern: str
    """Regular expression, whatever the case; `^` and `$` are of a line, `\\Z` of a log."""

    remedy: str
    """With the pattern's named groups in braces."""

    engine: str = ""
    """'': of any engine."""

    last: bool = False
    """Says too little: only where nothing else is known."""


MEMORY = (
    Hint(
        r"estimated maximum model length is (?P<length>\d+)",
        "there is room for {length} tokens: pulumi config set --path serving.maxModelLen {length}",
    ),
    Hint(
        r"larger than the available KV cache memory \((?P<there>[\d.]+) GiB\)\. Try",
        "{there} GiB beside the weights hold no single request: use more Sparks, a smaller quantisation, or a larger "
        "serving.gpuMemoryUtilization",
    ),
    Hint(
        r"No available memory for the cache blocks|Please try to increase --mem-fraction-static",
        "the weights leave no room for the cache: use more Sparks or a smaller quantisation, or raise "
        "serving.gpuMemoryUtilization",
    ),
    Hint(
        r"Free memory on device[^(]*\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)",
        "something else holds the Spark's memory, {free} of {total} GiB are free (./spark status), or "
        "serving.gpuMemoryUtilization is too high",
    ),
    Hint(
        r"killed due to the node running low on memory",
        "Ray's memory monitor ended a rank: pulumi config set --path serving.env.RAY_memory_monitor_refresh_ms 0, and "
        "lower serving.gpuMemoryUtilization",
    ),
    Hint(
        r"out of memory|OutOfMemoryError(?!: \d+ worker)",
        "lower serving.gpuMemoryUtilization or serving.maxModelLen, or use more Sparks",
    ),
    Hint(r"No space left on device", "free space on that Spark: ./spark prune, docker system df"),
)

MODEL = (
    Hint(
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<size>\d+)\)",
        "{size} Sparks can't divide {heads} heads: use serving.pipelineParallel, or remove serving.tensorParallel",
    ),
    Hint(
        r"assert (self\.total_num_kv_heads % tp_size|tp_size % self\.total_num_kv_heads) == 0"
        r"|^.*AssertionError: \d+ is not divisible by \d+",
        "the model's KV heads can't be divided by the Sparks in tensor parallel: use serving.pipelineParallel, or "
        "another number of Sparks",
    ),
    Hint(
        r"is not divisible by\s+(?P<what>weight quantization block_[nk]|min_thread_[nk]) = (?P<size>\d+)",
        "each Spark's part of a layer is no multiple of the {size} that the quantisation works in: "
        "serving.pipelineParallel in place of tensor parallel, serving.expertParallel true for a mixture of experts, "
        "or another quantisation",
    ),
    Hint(
        r"No valid attention backend found.*block_size not supported",
        "no attention kernel takes this block size: remove --block-size and --attention-backend from serving.extraArgs",
    ),
    Hint(
        r"Model architectures? (?P<name>\[.*?\]|\S+) (?:are not supported for now|(?:is|was) (?:not )?supported"
        r"|failed to be inspected)",
        "this version of the engine does not know {name}: choose a newer image.name, or another engine",
    ),
    Hint(
        r"model type `(?P<name>[^`]+)` but Transformers does not recognize this architecture",
        "this image does not know {name}: choose a newer image.name",
    ),
    Hint(
        r"is greater than the derived (?:max_model_len|context_length) "
        r"\((?:max_position_embeddings=)?(?P<longest>\d+)",
        "the model was made for {longest} tokens: pulumi config set --path serving.maxModelLen {longest}",
    ),
    Hint(
        r"weights were not initialized from checkpoint",
        "the weights are not those of the model's config.json: choose another weights.revision, or another engine",
    ),
    Hint(
        r"`trust_remote_code=True`",
        "the model brings code of its own: pulumi config set --path serving.trustRemoteCode true",
    ),
    Hint(
        r"default chat template is no longer allowed|must provide a chat template",
        "name one: serving.extraArgs [--chat-template=…], or download the model's chat_template.jinja",
    ),
)

NETWORK = (
    Hint(
        r"ibv_modify_qp failed with (?:error )?(?:110\b|Connection timed out)",
        "the peer's address does not answer on RDMA: cable, port 0 joined to port 1, or twins in one subnet; "
        "./spark doctor --bandwidth",
    ),
    Hint(
        r"ibv_modify_qp failed with (?:error )?(?:22\b|Invalid argument)",
        "the GID index is not that of the address any more (a reboot?), or the MTUs differ: pulumi up detects it "
        "again; ./spark doctor",
    ),
    Hint(
        r"ibv_modify_qp failed with (?:error )?(?:101\b|113\b|Network is unreachable|No route to host)",
        "there is no route to the peer's subnet: give both Sparks addresses of one subnet per port; "
        "./spark setup-network",
    ),
    Hint(
        r"ibv_modify_qp failed with (?:error )?(?:19\b|No such device)",
        "the network device behind the RDMA device is gone: ./spark doctor",
    ),
    Hint(
        r"Got completion (?:from peer \S+ )?with (?:error |status=)(?:\w+\()?12\b",
        "packets were sent again and again without an answer: the link drops them (cable, MTU 9000 on one side only, a "
        "firewall on UDP 4791), or that rank has died and its own log says why",
    ),
    Hint(
        r"ibv_reg_mr\w* failed with error Cannot allocate memory",
        "memory could not be locked: LimitMEMLOCK=infinity for Docker, or a kernel 7.0.0-1019 without kho=off; "
        "./spark doctor",
    ),
    Hint(
        r"Bootstrap : no socket interface found|NET/Socket : no interface found",
        "NCCL_SOCKET_IFNAME names no interface of that Spark: remove it from serving.env, or pulumi up detects it "
        "again",
    ),
    Hint(
        r"Failed to initialize any NET plugin",
        "NCCL_NET names a network that has no device in the container: remove it from serving.env; ./spark doctor",
    ),
    Hint(
        r"socketPollConnect: connect to (?P<peer>[\d.]+)<\d+> returned (?:Connection refused|No route to host|"
        r"Connection timed out)",
        "{peer} can't be reached: a firewall on the fabric's interface (NCCL uses many ports)? ./spark doctor",
    ),
    Hint(
        r"Duplicate GPU detected",
        "two ranks are on one Spark: two entries of nodes are the same machine?",
    ),
    Hint(
        r"custom ?all ?reduce is disabled[^\n]*\Z",
        "the ranks do not find each other's queue: SGLANG_HOST_IP must be each one's fabric address, so remove it from "
        "serving.env",
        engine="sglang",
    ),
    Hint(
        r"unhandled system error",
        "NCCL does not say why: pulumi config set --path serving.env.NCCL_DEBUG INFO tells more; ./spark doctor",
        last=True,
    ),
)

OTHERS = (
    Hint(
        r"invalid device context",
        "FlashInfer's fused all-reduce does not work between Sparks: serving.extraArgs ['--enable-dp-attention']",
        engine="sglang",
    ),
    Hint(r"unrecognized arguments", "this version of the engine has no such option: correct serving.extraArgs"),
    Hint(r"no kernel image is available", "the image was not built for GB10 (sm_121): choose another image.name"),
    Hint(r"Address already in use", "another program has that port: ./spark doctor names it"),
)

GARBLED = "makes no sense"
"""Of the reason that readiness gives for an answer without the right word in it."""

KERNEL = "on GB10 that is a kernel's fault, not the model's. Try serving.extraArgs with one of"
ANYWAY = "or a newer image.name; serving.checkAnswer false serves all the same"

ANSWERS = (
    Hint(
        GARBLED,
        f"{KERNEL} --moe-backend=marlin (mixture of experts), --linear-backend=marlin (NVFP4; vLLM 0.31), "
        f"--attention-backend=FLASHINFER or TRITON_ATTN; {ANYWAY}",
        engine="vllm",
    ),
    Hint(
        GARBLED,
        f"{KERNEL} --attention-backend=triton, --moe-runner-backend=triton or marlin (mixture of experts), "
        f"--fp4-gemm-backend=marlin; {ANYWAY}",
        engine="sglang",
    ),
    Hint(GARBLED, f"try another quantisation of the model, {ANYWAY}", engine="trtllm"),
)

HINTS = (*MEMORY, *MODEL, *NETWORK, *OTHERS, *ANSWERS)


def hints(engine: str, texts: Iterable[str]) -> list[str]:
    """The remedies against what these texts (whole logs, or a reason) say, each once, best known first."""
    logs = list(texts)
    known: dict[str, bool] = {}
    for hint in HINTS:
        if hint.engine not in ("", engine):
            continue
        for text in logs:
            match = re.search(hint.pattern, text, re.IGNORECASE | re.MULTILINE)
            if match:
                known.setdefault(hint.remedy.format(**match.groupdict()), hint.last)
    sure = [remedy for remedy, last in known.items() if not last]
    return sure or list(known)
