"""A planned container as a docker resource."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.plan.values import STACK_LIMIT, Container, Mount, volume_of_image
from components.resources.access import SparkAccess

ULIMITS = [
    docker.ContainerUlimitArgs(name="memlock", soft=-1, hard=-1),
    docker.ContainerUlimitArgs(name="stack", soft=STACK_LIMIT, hard=STACK_LIMIT),
]
INFINIBAND = [
    docker.ContainerDeviceArgs(host_path="/dev/infiniband", container_path="/dev/infiniband", permissions="rwm")
]
CONFINED = ["label=disable", "no-new-privileges=true"]
"""No program of the image gets more rights than its caller. The label is what Docker itself gives to a container that
shares the Spark's IPC, where nothing is said. Source: moby, daemon/create.go, generateSecurityOpt."""


def run(
    name: str,
    plan: Container,
    image: Input[str],
    spark: SparkAccess,
    opts: ResourceOptions,
    *,
    stands_on: Mapping[str, Input[str]] | None = None,
    pid_mode: Input[str] | None = None,
    secret_files: Mapping[str, Input[str]] | None = None,
) -> docker.Container:
    """`stands_on`: label → id of a container whose replacement must replace this one too."""
    labels = {**plan.labels, **(stands_on or {})}
    secrets = {path: Output.secret(text) for path, text in plan.secret_files.items()}
    files: dict[str, Input[str]] = {**plan.files, **secrets, **(secret_files or {})}
    return docker.Container(
        name,
        name=plan.name,
        image=image,
        command=[*plan.runner, *(hidden(plan, word) for word in plan.command)],
        entrypoints=list(plan.entrypoint) if plan.entrypoint is not None else None,
        envs=[f"{key}={value}" for key, value in sorted(plan.environment.items())],
        network_mode="host",
        ipc_mode="private" if plan.own_shm else "host",
        pid_mode=pid_mode,
        gpus="all",
        init=True,
        privileged=plan.privileged,
        shm_size=plan.shm_size,
        ulimits=ULIMITS,
        capabilities=None
        if plan.privileged
        else docker.ContainerCapabilitiesArgs(adds=list(plan.capabilities), drops=["ALL"]),
        security_opts=None if plan.privileged else CONFINED,
        devices=INFINIBAND if plan.rdma else None,
        volumes=[_volume(mount, image) for mount in plan.mounts],
        uploads=[docker.ContainerUploadArgs(file=path, content=text) for path, text in sorted(files.items())] or None,
        labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in sorted(labels.items())],
        restart=plan.restart,
        max_retry_count=plan.retries or None,
        destroy_grace_seconds=plan.grace,
        opts=ResourceOptions.merge(
            ResourceOptions(
                provider=spark.provider,
                hooks=spark.hooks,
                # The provider shows a change of `init` as an update and then does nothing.
                replace_on_changes=["init"],
            ),
            opts,
        ),
    )


def _volume(mount: Mount, image: Input[str]) -> docker.ContainerVolumeArgs:
    return docker.ContainerVolumeArgs(
        volume_name=source(mount, image) if mount.is_volume else None,
        host_path=None if mount.is_volume else mount.source,
        container_path=mount.target,
        read_only=mount.read_only,
    )


def source(mount: Mount, image: Input[str]) -> Input[str]:
    """Path on the Spark, or the volume's name; Docker makes a volume that is not there."""
    if not mount.of_image:
        return mount.source
    return Output.from_input(image).apply(lambda id_: volume_of_image(mount.source, id_))


def hidden(plan: Container, text: str) -> Input[str]:
    """`text`, as a secret where one is in it."""
    return Output.secret(text) if any(secret in text for secret in plan.secrets) else text
