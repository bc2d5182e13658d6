"""What can run beside the server: monitoring, a gateway with keys, a chat page. All off by default. Pure.

Monitoring: exporters on every Spark, on loopback or the fabric; Prometheus and Grafana on the head. Gateway: LiteLLM.
Chat: Open WebUI. Each image is pinned and can be replaced (`beside.images`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from components import ports
from components.facts.fabric import NodeLink
from components.plan.dashboards import DATASOURCE, dashboards
from components.plan.steps import inside
from components.plan.values import Extra, Identity
from components.settings import Role, Settings

IMAGES: dict[Role, str] = {
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.1.1",
    "node-exporter": "quay.io/prometheus/node-exporter:v1.9.1",
    "gpu-exporter": "utkuozdemir/nvidia_gpu_exporter:1.3.2",
    "gateway": "ghcr.io/berriai/litellm:v1.74.3-stable",
    "chat": "ghcr.io/open-webui/open-webui:v0.6.18",
}
"""Role → image, each for Arm too."""

INTERVAL = "5s"
"""Between two looks of Prometheus at every exporter."""

CONFIG = "/etc/dgx-spark"
"""Where our files are in these containers."""

KEYS = f"{CONFIG}/keys.json"
"""Name → key of the gateway's users, in its container. A secret."""

UPSTREAM = f"{CONFIG}/upstream-key"
"""The engine's own key, where it has one. A secret."""

WITH_UPSTREAM = f'UPSTREAM_KEY="$(cat {UPSTREAM})" exec litellm "$@"'
WITH_KEY = f'OPENAI_API_KEY="$(cat {UPSTREAM})" exec bash start.sh'
"""Both programs take the engine's key from the environment alone, where `docker inspect` would show it."""


def engine_url(settings: Settings, port: int) -> str:
    """The server's address on the head itself."""
    return f"http://{settings.serving.local_host}:{port}"


def has_metrics(settings: Settings) -> bool:
    """trtllm-serve 1.2 shows no Prometheus metrics without further options; the others do."""
    return settings.engine != "trtllm"


def plan(
    settings: Settings, identity: Identity, links: Mapping[str, NodeLink], port: int, model: str
) -> tuple[Extra, ...]:
    """`port`: of the server's API; `model`: its name there."""
    made: list[Extra] = []
    if settings.monitoring:
        made += _monitoring(settings, links, port)
    if settings.gateway:
        made.append(_gateway(settings, port, model))
    if settings.chat:
        made.append(_chat(settings, identity, port))
    return tuple(made)


def _image(settings: Settings, role: Role) -> str:
    return settings.beside.images.get(role, IMAGES[role])


def _monitoring(settings: Settings, links: Mapping[str, NodeLink], port: int) -> Iterator[Extra]:
    where = {node.name: links[node.name].address if node.name in links else "127.0.0.1" for node in settings.nodes}
    for name, address in where.items():
        yield from _exporters(settings, name, address)
    yield _prometheus(settings, where, port)
    yield _grafana(settings)


def _exporters(settings: Settings, name: str, address: str) -> Iterator[Extra]:
    yield Extra(
        role="node-exporter",
        node=name,
        image=_image(settings, "node-exporter"),
        command=(
            "--path.rootfs=/host",
            "--path.procfs=/host/proc",
            "--path.sysfs=/host/sys",
            f"--web.listen-address={address}:{ports.NODE_EXPORTER}",
        ),
        ports=(ports.NODE_EXPORTER,),
        host_root="/host",
    )
    yield Extra(
        role="gpu-exporter",
        node=name,
        image=_image(settings, "gpu-exporter"),
        command=(f"--web.listen-address={address}:{ports.GPU_EXPORTER}",),
        ports=(ports.GPU_EXPORTER,),
        gpu=True,
    )


def _prometheus(settings: Settings, where: Mapping[str, str], port: int) -> Extra:
    return Extra(
        role="prometheus",
        node=settings.head.name,
        image=_image(settings, "prometheus"),
        command=(
            f"--config.file={CONFIG}/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={settings.beside.retention}",
            f"--web.listen-address=127.0.0.1:{ports.PROMETHEUS}",
        ),
        ports=(ports.PROMETHEUS,),
        files={f"{CONFIG}/prometheus.yml": prometheus(settings, where, port)},
        volume=("prometheus", "/prometheus"),
    )


def _grafana(settings: Settings) -> Extra:
    return Extra(
        role="grafana",
        node=settings.head.name,
        image=_image(settings, "grafana"),
        ports=(settings.beside.grafana_port,),
        environment={
            "GF_SERVER_HTTP_ADDR": settings.beside.host,
            "GF_SERVER_HTTP_PORT": str(settings.beside.grafana_port),
            "GF_PATHS_PROVISIONING": PROVISIONING,
            # Everybody may look and nobody may change: there is no password to lose.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{CONFIG}/dashboards/cluster.json",
        },
        files={
            f"{PROVISIONING}/datasources/prometheus.yaml": json.dumps(PROMETHEUS_AS_SOURCE, indent=1),
            f"{PROVISIONING}/dashboards/dgx-spark.yaml": json.dumps(DASHBOARDS_IN_FILES, indent=1),
            **{
                f"{CONFIG}/dashboards/{name}.json": json.dumps(content, indent=1)
                for name, content in dashboards(settings.engine).items()
            },
        },
    )


PROVISIONING = f"{CONFIG}/grafana"
"""Where Grafana finds the two next ones. Source: Grafana's documentation, Provisioning."""

PROMETHEUS_AS_SOURCE = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "Prometheus",
            "uid": DATASOURCE,
            "type": "prometheus",
            "access": "proxy",
            "url": f"http://127.0.0.1:{ports.PROMETHEUS}",
            "isDefault": True,
        }
    ],
}

DASHBOARDS_IN_FILES = {
    "apiVersion": 1,
    "providers": [{"name": "dgx-spark", "type": "file", "options": {"path": f"{CONFIG}/dashboards"}}],
}


def prometheus(settings: Settings, where: Mapping[str, str], port: int) -> str:
    """Its configuration, as JSON, which YAML contains. `where`: node → address of its exporters."""

    def job(name: str, targets: Mapping[str, str]) -> dict[str, Any]:
        listed = [{"targets": [target], "labels": {"spark": node}} for node, target in targets.items()]
        return {"job_name": name, "static_configs": listed}

    jobs = [
        job("node", {node: f"{address}:{ports.NODE_EXPORTER}" for node, address in where.items()}),
        job("gpu", {node: f"{address}:{ports.GPU_EXPORTER}" for node, address in where.items()}),
    ]
    if has_metrics(settings):
        target = engine_url(settings, port).removeprefix("http://")
        jobs.append(job("engine", {settings.head.name: target}))
    intervals = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    return json.dumps({"global": intervals, "scrape_configs": jobs}, indent=1)


def _gateway(settings: Settings, port: int, model: str) -> Extra:
    # LiteLLM's own notation for a variable; the engine's key is a file (WITH_UPSTREAM), and else any word does.
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"hosted_vllm/{model}",
                    "api_base": f"{engine_url(settings, port)}/v1",
                    "api_key": "os.environ/UPSTREAM_KEY",
                },
            }
        ],
        "general_settings": {"custom_auth": "gateway_auth.authenticate"},
        # 1.74.3 turns it on by itself (its guardrail_hooks/aporia_ai), and answers are in its log.
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    words = (
        f"--config={CONFIG}/litellm.yaml",
        f"--host={settings.beside.host}",
        f"--port={settings.beside.gateway_port}",
    )
    return Extra(
        role="gateway",
        node=settings.head.name,
        image=_image(settings, "gateway"),
        entrypoint=("sh", "-c", WITH_UPSTREAM, "litellm"),
        command=words,
        # Its table of prices would be fetched from GitHub at each start.
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        ports=(settings.beside.gateway_port,),
        files={
            # No JSON: YAML reads the two halves of an escaped emoji as two characters.
            f"{CONFIG}/litellm.yaml": yaml.safe_dump(config, sort_keys=False),
            f"{CONFIG}/gateway_auth.py": inside("gateway_auth.py"),
        },
        secrets=(KEYS, UPSTREAM),
    )


def _chat(settings: Settings, identity: Identity, port: int) -> Extra:
    guarded = bool(settings.api_key.get_secret_value())
    return Extra(
        role="chat",
        node=settings.head.name,
        image=_image(settings, "chat"),
        entrypoint=("bash", "-c", WITH_KEY) if guarded else None,
        environment={
            "HOST": settings.beside.host,
            "PORT": str(settings.beside.chat_port),
            "OPENAI_API_BASE_URL": f"{engine_url(settings, port)}/v1",
            "ENABLE_OLLAMA_API": "false",
            "WEBUI_NAME": identity.stack,
            # Models of its own for documents would be fetched from the hub, and GitHub asked for a newer version.
            "OFFLINE_MODE": "true",
        },
        ports=(settings.beside.chat_port,),
        volume=("chat", "/app/backend/data"),
        secrets=(UPSTREAM,) if guarded else (),
    )


def secrets(settings: Settings) -> dict[str, str]:
    """Path → content of the files that `Extra.secrets` names."""
    keys = {name: key.get_secret_value() for name, key in settings.gateway_keys.items()}
    return {KEYS: json.dumps(keys), UPSTREAM: settings.api_key.get_secret_value() or "none"}


def links(settings: Settings) -> dict[str, str]:
    """What a person opens, for the stack's outputs."""
    host = settings.head.url_host if settings.beside.host == "0.0.0.0" else settings.beside.host
    chosen = {
        "grafana": (settings.monitoring, f"http://{host}:{settings.beside.grafana_port}"),
        "gateway": (settings.gateway, f"http://{host}:{settings.beside.gateway_port}/v1"),
        "chat": (settings.chat, f"http://{host}:{settings.beside.chat_port}"),
    }
    return {name: url for name, (wanted, url) in chosen.items() if wanted}
