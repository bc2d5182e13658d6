"""`vllm serve`."""

import json
import os
import signal
import sys

from standin import server
from vllm import __version__, executor, failing
from vllm.arguments import parse


def log(text: str) -> None:
    print(f"INFO {failing.now()} [vllm] {text}", flush=True)


def find(model: str, revision) -> str:
    """The model's directory: a path, or a snapshot in the Hugging Face cache (or the hub, where allowed)."""
    if os.path.isdir(model):
        return model
    from huggingface_hub import snapshot_download

    return snapshot_download(model, revision=revision)


class Attention:
    def __init__(self, config: dict, tp_size: int) -> None:
        self.total_num_kv_heads = config.get("num_key_value_heads", config["num_attention_heads"])
        # The real one has no words for it: the traceback shows these lines.
        if self.total_num_kv_heads >= tp_size:
            assert self.total_num_kv_heads % tp_size == 0
        else:
            assert tp_size % self.total_num_kv_heads == 0


def check(arguments, config: dict) -> int:
    """The refusals of ModelConfig and ParallelConfig; returns the context length."""
    tensor = arguments.tensor_parallel_size
    heads = config["num_attention_heads"]
    if heads % tensor:
        raise ValueError(
            f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tensor})."
        )
    derived = config["max_position_embeddings"]
    length = int(arguments.max_model_len or derived)
    if length > derived:
        raise ValueError(
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
            f"(max_position_embeddings={float(derived)} or model_max_length=None in model's config.json). To allow "
            "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
    if not 0 < arguments.gpu_memory_utilization <= 1:
        raise ValueError("gpu_memory_utilization must be in (0, 1]")
    if arguments.enable_expert_parallel and not config.get("num_local_experts"):
        raise ValueError("Number of experts in the model must be greater than 0 when expert parallelism is enabled.")
    return length


Executor = type[executor.Torch] | type[executor.Copies] | type[executor.RayCluster] | type[executor.Local]


def chosen(arguments) -> Executor:
    """The executor that places the ranks."""
    world = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    on_ray = arguments.distributed_executor_backend == "ray"
    if arguments.nnodes > 1 and on_ray:
        raise ValueError("the ray executor is not supported with nnodes > 1")
    if arguments.nnodes > 1:
        return executor.Torch
    if on_ray:
        return executor.RayCluster
    if arguments.data_parallel_size > 1:
        return executor.Copies
    if world > 1:
        raise ValueError(f"World size ({world}) is larger than the number of available GPUs (1) in this node.")
    return executor.Local


METHODS = (
    "ngram", "medusa", "mlp_speculator", "draft_model", "suffix", "eagle", "eagle3", "mtp", "dflash", "dspark",
)  # fmt: skip


def speculate(text: str) -> None:
    """The refusals of SpeculativeConfig."""
    config = json.loads(text)
    method, model = config.get("method"), config.get("model")
    if method not in METHODS:
        raise ValueError(f"Unsupported speculative method: '{method}'")
    if not config.get("num_speculative_tokens"):
        raise ValueError("num_speculative_tokens must be provided with speculative_config.")
    if model is None and method not in ("mtp", "dspark", "ngram", "suffix"):
        raise ValueError("num_speculative_tokens was provided but without speculative model.")
    if model is not None:
        path = find(model, config.get("revision"))
        with open(os.path.join(path, "config.json")) as stream:
            json.load(stream)
    log(f"SpeculativeConfig(method='{method}', model='{model}', num_spec_tokens={config['num_speculative_tokens']})")


def main() -> None:
    if sys.argv[1:2] != ["serve"]:
        sys.exit("usage: vllm serve [model_tag] [options]")
    arguments = parse(sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    log(f"vLLM API server version {__version__} (simulated)")
    model = arguments.model_tag or arguments.model
    if not model:
        sys.exit("vllm serve: error: no model given")
    path = find(model, arguments.revision)
    with open(os.path.join(path, "config.json")) as stream:
        config = json.load(stream)
    try:
        length = check(arguments, config)
        if arguments.speculative_config:
            speculate(arguments.speculative_config)
        placed = chosen(arguments)
    except ValueError as error:
        failing.refused(error)
        sys.exit(1)
    try:
        Attention(config, arguments.tensor_parallel_size)
        engine = placed(path, arguments, log)
    except Exception as error:
        failing.failed(error)
        sys.exit(1)
    names = arguments.served_model_name or [model]
    keys = arguments.api_key or [key for key in [os.environ.get("VLLM_API_KEY")] if key]
    log(f"Starting vLLM server on http://{arguments.host or '0.0.0.0'}:{arguments.port}")
    runner = arguments.runner
    if runner not in (None, "auto", "generate", "pooling"):
        raise ValueError(f"this stand-in has no runner {runner}")
    overrides = json.loads(arguments.hf_overrides or "{}")
    tools = bool(arguments.enable_auto_tool_choice and arguments.tool_call_parser)
    state = server.State(
        names=names,
        keys=keys,
        max_model_len=length,
        step=engine.step,
        tools=tools,
        version=__version__,
        task=server.task({**config, **overrides}) if runner == "pooling" else "generate",
        template=server.has_template(path),
        reasons=bool(arguments.reasoning_parser),
    )
    server.serve(arguments.host or "0.0.0.0", arguments.port, state, drain=float(arguments.shutdown_timeout or 0))


if __name__ == "__main__":
    main()
