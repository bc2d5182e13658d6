"""`python3 -m sglang.launch_server`."""

import json
import math
import os
import signal
import subprocess
import sys
import time

from sglang import __version__
from sglang.arguments import parser
from standin import ranks, server, worker
from standin.knobs import knobs


def log(text: str) -> None:
    print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)


def with_config(words: list) -> list:
    """`--config FILE` holds more options; those of the command line win, so they come last. As one word with `=` it
    is an option like any other, and nobody reads the file."""
    if "--config" not in words:
        return words
    import yaml

    place = words.index("--config")
    file = words[place + 1]
    if not file.lower().endswith((".yaml", ".yml")):
        raise ValueError(f"Config file must be YAML format, got: {os.path.splitext(file)[1]}")
    with open(file) as stream:
        more = [word for key, value in yaml.safe_load(stream).items() for word in (f"--{key}", str(value))]
    return [*more, *words[:place], *words[place + 2 :]]


def check(arguments, config: dict) -> int:
    """The refusals of ServerArgs and ModelConfig; returns the context length."""
    world = arguments.tp_size * arguments.pp_size
    if world % arguments.nnodes:
        raise ValueError("tp_size must be divisible by number of nodes")
    if world // arguments.nnodes > 1:
        raise ValueError(f"{world // arguments.nnodes} GPUs per node are needed and there is 1")
    if arguments.nnodes > 1 and not arguments.dist_init_addr:
        raise ValueError("--dist-init-addr is required with several nodes")
    if config["num_attention_heads"] % arguments.tp_size:
        raise ValueError("num_attention_heads must be divisible by tp_size")
    derived = config["max_position_embeddings"]
    length = arguments.context_length or derived
    if length > derived:
        raise ValueError(
            f"User-specified context_length ({length}) is greater than the derived context_length ({derived})."
        )
    return length


ALGORITHMS = ("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM", "DFLASH", "DSPARK")


def speculate(arguments) -> None:
    """The refusals of ServerArgs."""
    algorithm, draft = arguments.speculative_algorithm, arguments.speculative_draft_model_path
    if algorithm not in ALGORITHMS:
        raise ValueError(f"Unknown speculative algorithm name: {algorithm}")
    if draft is None and algorithm in ("EAGLE3", "STANDALONE", "DFLASH"):
        raise ValueError(f"{algorithm} needs --speculative-draft-model-path")
    chain = (arguments.speculative_num_steps, arguments.speculative_eagle_topk)
    if chain == ("1", "1") and arguments.speculative_num_draft_tokens != "2":
        raise ValueError(
            "speculative_num_draft_tokens must be speculative_num_steps + 1 when speculative_eagle_topk is 1"
        )
    if draft is not None:
        with open(os.path.join(draft, "config.json")) as stream:
            json.load(stream)
    log(f"speculative_algorithm={algorithm}, speculative_draft_model_path={draft}")


def local_address() -> str:
    """What this rank tells the others to reach it by. Source: get_local_ip_auto, srt/utils/network.py of 0.5.23."""
    named = os.environ.get("SGLANG_HOST_IP") or os.environ.get("HOST_IP")
    if named:
        return named
    # The real one connects a UDP socket to 8.8.8.8 and asks for its own end: the address of the default route.
    route = subprocess.run(["ip", "-o", "route", "get", "8.8.8.8"], capture_output=True, text=True).stdout.split()
    if "src" not in route:
        raise ValueError("Can not get local ip")
    return route[route.index("src") + 1]


def main() -> None:
    arguments = parser().parse_args(with_config(sys.argv[1:]))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    log(f"server_args: sglang {__version__} (simulated), node_rank={arguments.node_rank}")
    for deprecated in ("disable_cuda_graph", "enable_dp_attention"):
        if getattr(arguments, deprecated):
            log(f"WARNING --{deprecated.replace('_', '-')} is deprecated")
    with open(os.path.join(arguments.model_path, "config.json")) as stream:
        config = json.load(stream)
    length = check(arguments, config)
    if arguments.speculative_algorithm:
        speculate(arguments)
    world, rank = arguments.nnodes, arguments.node_rank
    share = arguments.mem_fraction_static or 0.85
    address, _, port = (arguments.dist_init_addr or "127.0.0.1:0").rpartition(":")
    limit = arguments.dist_timeout or 1800

    def load() -> None:
        worker.load(rank, world, arguments.model_path, knobs(), share, log, family="sglang")

    if world > 1:
        local = local_address()
        log("CustomAllreduce is disabled because this process group spans across nodes.")
    if rank:
        ranks.follow(rank, address, int(port), load, log, limit)
    head = ranks.Head(world, address, int(port), log, limit)
    if world > 1:
        head.open_queue(local)
        log("Init parallel ends.")
    load()
    head.ask(b"l")
    state = server.State(
        names=[arguments.served_model_name or arguments.model_path],
        keys=[arguments.api_key] if arguments.api_key else [],
        max_model_len=length,
        step=head.step,
        family="sglang",
        tools=bool(arguments.tool_call_parser),
        version=__version__,
        task=server.task(config) if arguments.is_embedding else "generate",
        template=server.has_template(arguments.model_path),
        reasons=bool(arguments.reasoning_parser),
        metrics=bool(arguments.enable_metrics),
    )
    log("The server is fired up and ready to roll!")
    # It answers what it has accepted, however long that takes (srt/managers/tokenizer_manager.py, sigterm_watchdog).
    server.serve(arguments.host, arguments.port, state, drain=math.inf)


if __name__ == "__main__":
    main()
