"""Grafana's dashboards: the cluster (GPUs, memory, fabric) and the engine's own figures. Pure.

Names of metrics. Engines: vllm/v1/metrics/loggers.py of vLLM 0.19 and sglang/srt/observability/metrics_collector.py of
SGLang 0.5.23. Sparks: node_exporter's memory, filesystem and infiniband collectors; nvidia_gpu_exporter's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DATASOURCE = "dgx-spark-prometheus"
"""Grafana's uid of Prometheus."""

WIDTH, HEIGHT = 12, 8
"""Of a panel, in Grafana's grid of 24 columns."""


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """Grafana's name for it."""

    queries: tuple[tuple[str, str], ...]
    """(legend, PromQL)"""


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of a histogram."""
    by = f"sum by (le) (rate({metric}_bucket[5m]))"
    return tuple((name, f"histogram_quantile({share}, {by})") for name, share in (("p50", 0.5), ("p99", 0.99)))


FABRIC = "sum by (spark, device) (rate(node_infiniband_port_data_{}_bytes_total[1m])) * 8"

DISKS = 'node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|vfat"}'

CLUSTER = (
    Panel("GPU utilization", "percentunit", (("{{spark}}", "nvidia_smi_utilization_gpu_ratio"),)),
    Panel("GPU temperature", "celsius", (("{{spark}}", "nvidia_smi_temperature_gpu"),)),
    Panel("GPU power", "watt", (("{{spark}}", "nvidia_smi_power_draw_watts"),)),
    Panel("Memory free (CPU and GPU share it)", "bytes", (("{{spark}}", "node_memory_MemAvailable_bytes"),)),
    Panel("Fabric received", "bps", (("{{spark}} {{device}}", FABRIC.format("received")),)),
    Panel("Fabric sent", "bps", (("{{spark}} {{device}}", FABRIC.format("transmitted")),)),
    Panel("Disk free (the fullest one)", "bytes", (("{{spark}}", f"min by (spark) ({DISKS})"),)),
    Panel("Load", "short", (("{{spark}}", "node_load1"),)),
)


def served(family: str, running: str, waiting: str, cache: str) -> tuple[Panel, ...]:
    """The panels of one engine. `family`: prefix of its metrics; the others: names of its gauges."""
    tokens = f"sum(rate({family}:{{}}_tokens_total[1m]))"
    return (
        Panel(
            "Requests",
            "short",
            (("running", f"sum({family}:{running})"), ("waiting", f"sum({family}:{waiting})")),
        ),
        Panel("KV cache in use", "percentunit", (("", f"max({family}:{cache})"),)),
        Panel(
            "Tokens per second",
            "short",
            (("generated", tokens.format("generation")), ("prompts", tokens.format("prompt"))),
        ),
        Panel("Time to first token", "s", quantiles(f"{family}:time_to_first_token_seconds")),
        Panel("Between tokens", "s", quantiles(f"{family}:inter_token_latency_seconds")),
        Panel("Whole answers", "s", quantiles(f"{family}:e2e_request_latency_seconds")),
    )


ENGINES = {
    "vllm": served("vllm", "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    "sglang": served("sglang", "num_running_reqs", "num_queue_reqs", "token_usage"),
}
"""trtllm-serve has none without further options."""


def dashboards(engine: str) -> dict[str, dict[str, Any]]:
    """File name → Grafana's dashboard model."""
    made = {"cluster": dashboard("cluster", "DGX Sparks", CLUSTER)}
    if engine in ENGINES:
        made["engine"] = dashboard("engine", f"Inference: {engine}", ENGINES[engine])
    return made


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": DATASOURCE}
    return {
        "uid": f"dgx-spark-{uid}",
        "title": title,
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [
            {
                "id": number,
                "type": "timeseries",
                "title": panel.title,
                "datasource": source,
                "gridPos": {
                    "x": WIDTH * ((number - 1) % 2),
                    "y": HEIGHT * ((number - 1) // 2),
                    "w": WIDTH,
                    "h": HEIGHT,
                },
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + place), "datasource": source, "expr": query, "legendFormat": legend}
                    for place, (legend, query) in enumerate(panel.queries)
                ],
            }
            for number, panel in enumerate(panels, 1)
        ],
    }
