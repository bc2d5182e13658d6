"""What happens to a cluster day by day: the events of which recorded_steps.yaml holds the steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SNAPSHOT = "~/.cache/huggingface/hub/models--openai--gpt-oss-120b/snapshots"


@dataclass(frozen=True)
class Change:
    """Settings on top of the layout's; secret ones apart."""

    config: dict[str, Any] = field(default_factory=dict)
    secret: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    name: str
    changes: dict[str, Change]
    drifts: dict[str, str]
    """What has happened → shell command on the last Spark of two, or on the head (`HEAD:` before it)."""


def server(option: str, **secret: str) -> dict[str, Change]:
    """Of every engine; `secret`: its settings that are."""
    return {
        "another context length": Change({"serving": {"maxModelLen": 8192}}),
        "another model": Change({"model": "gpt-oss-20b"}),
        "an engine's flag": Change({"serving": {"extraArgs": [option]}}),
        "secrets": Change(secret={"hfToken": "hf_private", **secret}),
    }


BESIDE = {
    "monitoring": Change({"monitoring": True}),
    "a chat page": Change({"chat": True}),
    "a gateway": Change({"gateway": True}, {"gatewayKeys.alice": "sk-0123456789abcdef0123456789abcdef"}),
    "a model beside it": Change({"weights": {"stage": ["gpt-oss-20b"]}}),
    "another engine": Change({"engine": "sglang"}),
}
FILES = {
    "a file of weights deleted": f"rm $(readlink -f {SNAPSHOT}/*/model-00001*)",
    "the scripts deleted": "rm -r ~/.local/state/dgx-spark/organization.dgx-spark.recorded/scripts",
}
NAMED = "dgx-spark-recorded-"
GONE = f"docker rm -f {NAMED}"
ROUTES = (
    Layout(
        "vLLM on Ray",
        server("--max-num-seqs=16", apiKey="sk-private") | BESIDE,
        FILES
        | {
            "Ray's worker stopped": f"docker stop -t 1 {NAMED}ray-worker",
            "the server removed": f"HEAD: {GONE}server",
            "Ray's head removed": f"HEAD: {GONE}ray-head",
        },
    ),
    Layout(
        "vLLM without Ray",
        server("--max-num-seqs=16", apiKey="sk-private") | {"Ray": Change({"serving": {"executor": "ray"}})},
        {"the server removed": f"HEAD: {GONE}server", "a rank removed": f"{GONE}server"},
    ),
    Layout("SGLang", server("--max-running-requests=16", apiKey="sk-private"), {"a rank removed": f"{GONE}server"}),
    Layout(
        "TensorRT-LLM on Swarm",
        server("--max_num_tokens=4096"),
        {
            # Its container ends after the service has gone.
            "a rank's service removed": f"HEAD: docker service rm {NAMED}server-spark-1; "
            f"while docker ps | grep -q {NAMED}server-spark-1; do sleep 0.2; done",
            "a Spark left the Swarm": "docker swarm leave",
        },
    ),
    Layout(
        "all beside",
        {
            "no monitoring": Change({"monitoring": False}),
            "a gateway": BESIDE["a gateway"],
            "another model": Change({"model": "gpt-oss-20b"}),
        },
        {
            "Prometheus removed": f"HEAD: {GONE}prometheus",
            "an exporter stopped": f"docker stop -t 1 {NAMED}node-exporter",
            "the chat page removed": f"HEAD: {GONE}chat",
        },
    ),
    Layout("TensorRT-LLM by MPI", server("--max_num_tokens=4096"), {"a rank removed": f"{GONE}server"}),
)
