"""`trtllm-serve`, alone or as rank 0 of `trtllm-llmapi-launch`."""

import json
import os
import signal
import sys
import time

import yaml

from standin import gpu, server, worker
from standin.knobs import knobs
from trtllm import __version__
from trtllm.arguments import parser


def log(text: str) -> None:
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [TRT-LLM] [I] {text}", flush=True)


def find(arguments) -> str:
    """The model's directory: a path, or a snapshot in the Hugging Face cache (or the hub, where allowed)."""
    if os.path.isdir(arguments.model):
        return arguments.model
    from huggingface_hub import snapshot_download

    return snapshot_download(arguments.model, revision=arguments.revision)


def options(arguments) -> dict:
    """The YAML of options, which wins over the command line."""
    if not arguments.config:
        return {}
    with open(arguments.config) as stream:
        return yaml.safe_load(stream)


def share(arguments) -> float:
    known = options(arguments).get("kv_cache_config", {})
    return known.get("free_gpu_memory_fraction", arguments.free_gpu_memory_fraction)


def check(arguments, config: dict, world: int) -> int:
    """The refusals of LlmArgs; returns the longest sequence."""
    wanted = arguments.tensor_parallel_size * arguments.pipeline_parallel_size * arguments.context_parallel_size
    if wanted != world:
        raise ValueError(f"world_size {wanted} must equal the number of MPI ranks, which is {world}")
    if config["num_attention_heads"] % arguments.tensor_parallel_size:
        raise ValueError("num_attention_heads must be divisible by tp_size")
    return arguments.max_seq_len or config["max_position_embeddings"]


DECODING = {
    "MTP": "num_nextn_predict_layers", "Eagle": "max_draft_len", "DraftTarget": "max_draft_len",
    "NGram": "max_draft_len",
}  # fmt: skip


def speculate(config: dict) -> None:
    """The refusals of LlmArgs' speculative_config, which takes no key that it does not know."""
    kind = config["decoding_type"]
    if kind not in DECODING:
        raise ValueError(f"Invalid decoding type: {kind}")
    extra = set(config) - {"decoding_type", "speculative_model_dir", DECODING[kind]}
    if extra:
        raise ValueError(f"Extra inputs are not permitted: {sorted(extra)}")
    draft = config.get("speculative_model_dir")
    if draft is None and kind in ("Eagle", "DraftTarget"):
        raise ValueError("Draft model must be provided")
    if draft is not None:
        with open(os.path.join(draft, "config.json")) as stream:
            json.load(stream)
    log(f"speculative_config: {kind}, {draft}")


def words(command: list) -> list:
    """`serve` is the default sub-command."""
    return command[1:] if command[:1] == ["serve"] else command


def serve(arguments, world: int, step) -> None:
    path = find(arguments)
    with open(os.path.join(path, "config.json")) as stream:
        length = check(arguments, json.load(stream), world)
    if "speculative_config" in options(arguments):
        speculate(options(arguments)["speculative_config"])
    # A directory is served under its last name. Source: OpenAIServer, tensorrt_llm/serve/openai_server.py.
    name = os.path.basename(arguments.model.rstrip("/")) if os.path.isdir(arguments.model) else arguments.model
    tools = bool(arguments.tool_parser)
    state = server.State(
        names=[name],
        keys=[],
        max_model_len=length,
        step=step,
        family="trtllm",
        tools=tools,
        metrics=False,
        version=__version__,
        template=server.has_template(path),
        reasons=bool(arguments.reasoning_parser),
    )
    log(f"trtllm-serve {__version__} (simulated) on {arguments.host}:{arguments.port}")
    server.serve(arguments.host, arguments.port, state)


def load(arguments, rank: int, world: int) -> None:
    worker.load(rank, world, find(arguments), knobs(), share(arguments), log, family="trtllm")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    arguments = parser().parse_args(words(sys.argv[1:]))
    load(arguments, 0, 1)
    serve(arguments, 1, gpu.work)


if __name__ == "__main__":
    main()
