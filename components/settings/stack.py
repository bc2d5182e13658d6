"""A stack's whole configuration."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from components import ports
from components.settings.beside import BesideSettings
from components.settings.fabric import FabricSettings
from components.settings.nodes import Login, Node, Ssh
from components.settings.serving import Containers, ImageSettings, RaySettings, Serving, SwarmSettings, TrtllmSettings
from components.settings.weights import Weights
from components.settings.words import Frozen, Name, Token


def _place(host: str, port: int) -> str:
    """The same for one sshd, however its host is written."""
    try:
        name = str(ipaddress.ip_address(host))
    except ValueError:
        name = host.lower().rstrip(".")
    return name if port == ports.SSH else f"{name} port {port}"


class Settings(Frozen):
    """A stack's whole configuration."""

    nodes: tuple[Node, ...]
    """The Sparks, head first."""

    engine: Literal["vllm", "sglang", "trtllm"]
    """Inference engine."""

    model: Annotated[str, Field(min_length=1)]
    """A name from the catalog, any Hugging Face repository, ORG/NAME, or a directory on the head, /PATH."""

    catalog: str = ""
    """File on this machine with more models, written as components/catalog/models.yaml."""

    ssh: Ssh = Ssh()
    serving: Serving = Serving()
    weights: Weights = Weights()
    image: ImageSettings = ImageSettings()
    containers: Containers = Containers()
    fabric: FabricSettings = FabricSettings()
    ray: RaySettings = RaySettings()
    trtllm: TrtllmSettings = TrtllmSettings()
    swarm: SwarmSettings = SwarmSettings()
    takeover: bool = False
    """Take Sparks that another stack holds: its server is stopped and removed when this one's image and weights are
    in place. False: be told who holds them."""

    monitoring: bool = False
    """Prometheus and Grafana on the head, with exporters for GPU, memory and fabric on every Spark."""

    gateway: bool = False
    """LiteLLM on the head: one OpenAI endpoint in front, which only the keys in `gatewayKeys` open."""

    chat: bool = False
    """Open WebUI on the head, for people; who registers first is its administrator."""

    beside: BesideSettings = BesideSettings()
    gateway_keys: dict[Name, Token] = {}
    """Who may use the gateway: name → key."""

    hf_token: Token = SecretStr("")
    """Hugging Face token for gated models. Goes to the Sparks by stdin and is kept nowhere there."""

    api_key: Token = SecretStr("")
    """Clients must send it as bearer token. Empty: the API is open to whoever reaches its port."""

    _encrypted: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.nodes:
            raise ValueError("nodes: holds no Spark")
        places = [_place(node.host, self.ssh.login(node).port) for node in self.nodes]
        for attribute, values in {"name": [node.name for node in self.nodes], "host": places}.items():
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"nodes: {', '.join(twice)} is used as {attribute} of more than one node")
        unknown = sorted(set(self.ssh.host_keys) - {node.name for node in self.nodes})
        if unknown:
            raise ValueError(f"ssh.hostKeys: {', '.join(unknown)} is no name of a node")
        return self

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def is_encrypted(self, key: str) -> bool:
        """Some part of this key is encrypted in the stack's file; Pulumi does not say which."""
        return key in self._encrypted

    def login(self, name: str) -> Login:
        """How to log in to the node of this name."""
        (node,) = (node for node in self.nodes if node.name == name)
        return self.ssh.login(node)
