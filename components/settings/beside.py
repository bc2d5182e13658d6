"""What runs beside the server."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from components import ports
from components.settings.words import Frozen, ImageName, Port

Role = Literal["prometheus", "grafana", "node-exporter", "gpu-exporter", "gateway", "chat"]


class BesideSettings(Frozen):
    """Of `monitoring`, `gateway` and `chat`."""

    host: Annotated[str, BeforeValidator(lambda value: str(ipaddress.IPv4Address(value)))] = "0.0.0.0"
    """Address on the head that Grafana, gateway and chat bind to."""

    grafana_port: Port = ports.GRAFANA
    """Where people look at the dashboards; anybody may, and nobody may change them."""

    gateway_port: Port = ports.GATEWAY
    """Of the gateway's OpenAI API."""

    chat_port: Port = ports.CHAT
    """Of the chat page."""

    retention: Annotated[str, Field(pattern=r"^\d+[dwy]$")] = "15d"
    """How long Prometheus keeps figures."""

    images: dict[Role, ImageName] = {}
    """Role → image in place of the pinned one (components/plan/beside.py)."""
