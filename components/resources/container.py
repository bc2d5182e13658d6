"""A planned container as a docker resource."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.plan.values import STACK_LIMIT, Container
from components.resources.access import SparkAccess


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
    files = {**plan.files, **(secret_files or {})}
    return docker.Container(
        name,
        name=plan.name,
        image=image,
        command=[*plan.runner, *(hidden(plan, word) for word in plan.command)],
        entrypoints=list(plan.entrypoint) if plan.entrypoint is not None else None,
        envs=[hidden(plan, f"{key}={value}") for key, value in sorted(plan.environment.items())],
        network_mode="host",
        ipc_mode="host",
        pid_mode=pid_mode,
        gpus="all",
        init=True,
        privileged=plan.privileged,
        shm_size=plan.shm_size,
        ulimits=[
            docker.ContainerUlimitArgs(name="memlock", soft=-1, hard=-1),
            docker.ContainerUlimitArgs(name="stack", soft=STACK_LIMIT, hard=STACK_LIMIT),
        ],
        # RDMA registers memory, which must not be swapped out; nothing else of a privileged container is needed.
        capabilities=docker.ContainerCapabilitiesArgs(adds=["CAP_IPC_LOCK"]),
        devices=[
            docker.ContainerDeviceArgs(host_path="/dev/infiniband", container_path="/dev/infiniband", permissions="rwm")
        ]
        if plan.rdma
        else None,
        volumes=[
            docker.ContainerVolumeArgs(
                volume_name=mount.source if mount.is_volume else None,
                host_path=None if mount.is_volume else mount.source,
                container_path=mount.target,
                read_only=mount.read_only,
            )
            for mount in plan.mounts
        ],
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


def hidden(plan: Container, text: str) -> Input[str]:
    """`text`, as a secret where one is in it."""
    return Output.secret(text) if any(secret in text for secret in plan.secrets) else text
