"""Type token → implementation. What is not here stops the run, naming the type."""

from __future__ import annotations

from simulator.engine.providers import ResourceType
from simulator.engine.providers.command import LocalCommand, RemoteCommand
from simulator.engine.providers.docker_types import Container, RemoteImage, Volume
from simulator.engine.providers.swarm_types import Immutable, Service

TYPES: dict[str, ResourceType] = {
    "command:local:Command": LocalCommand(),
    "command:remote:Command": RemoteCommand(),
    "docker:index/remoteImage:RemoteImage": RemoteImage(),
    "docker:index/container:Container": Container(),
    "docker:index/volume:Volume": Volume(),
    "docker:index/service:Service": Service(),
    "docker:index/secret:Secret": Immutable("secrets"),
    "docker:index/serviceConfig:ServiceConfig": Immutable("configs"),
}


class UnknownType(Exception):
    def __init__(self, type_: str) -> None:
        super().__init__(
            f"the hermetic engine has no resource type {type_}; use the Pulumi CLI, or add it to {__name__}"
        )


def implementation(type_: str) -> ResourceType:
    if type_ not in TYPES:
        raise UnknownType(type_)
    return TYPES[type_]
