"""A planned container as a Docker Swarm service of one task, tied to its Spark.

What a service can't ask for (devices, ulimits, shared memory) comes from the daemon's settings and the NVIDIA
runtime (scripts/swarm_host.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.plan.values import GPU_KIND, Container, Identity, digest, service_name
from components.resources.access import SparkAccess
from components.resources.container import hidden, source

CONVERGE_LIMIT = "180s"
"""For the old task to end and the new one to run; loading the model is the endpoint's matter."""


@dataclass(frozen=True)
class Files:
    """What the services' tasks find as files: Swarm keeps it and hands it to the tasks alone."""

    configs: Mapping[tuple[str, str], docker.ServiceConfig]
    """(path, content) → Swarm config."""

    secrets: Mapping[str, docker.Secret]
    """Path → Swarm secret."""


def files(
    name: str,
    identity: Identity,
    ranks: Sequence[Container],
    secrets: Mapping[str, Output[str]],
    manager: SparkAccess,
    opts: ResourceOptions,
) -> Files:
    """Configs and secrets can't be changed, so what is in them is part of their names. `secrets`: of every rank,
    beside its own."""
    # Those of a former version have no label, and can't be changed.
    theirs = ResourceOptions(provider=manager.provider, hooks=manager.hooks, ignore_changes=["labels"])
    common = ResourceOptions.merge(theirs, opts)
    wanted = sorted({item for rank in ranks for item in rank.files.items()})
    configs = {}
    for path, content in wanted:
        mark = _mark(path, content)
        configs[path, content] = docker.ServiceConfig(
            f"{name}-config-{mark}",
            name=identity.container(mark),
            data=base64.b64encode(content.encode()).decode(),
            labels=[docker.ServiceConfigLabelArgs(label="dgx-spark.stack", value=identity.full)],
            opts=common,
        )
    # In use it can't be deleted, and a key made anew would be no better than this one.
    once = ResourceOptions.merge(ResourceOptions(ignore_changes=["data"]), common)
    made = {path: _secret(name, identity, _mark(path), value, once) for path, value in secrets.items()}
    for path, text in sorted({item for rank in ranks for item in rank.secret_files.items()}):
        made[path] = _secret(name, identity, _mark(path, text), Output.secret(text), common)
    return Files(configs, made)


def _mark(path: str, content: str = "") -> str:
    """Part of a config's or secret's name: they can't be changed, so another content is another one."""
    end = path.rsplit("/", 1)[-1].replace(".", "-").replace("_", "-")
    return f"{end}-{digest(content)[:8]}" if content else end


def _secret(name: str, identity: Identity, mark: str, value: Output[str], opts: ResourceOptions) -> docker.Secret:
    return docker.Secret(
        f"{name}-secret-{mark}",
        name=identity.container(mark),
        data=value.apply(lambda text: base64.b64encode(text.encode()).decode()),
        labels=[docker.SecretLabelArgs(label="dgx-spark.stack", value=identity.full)],
        opts=opts,
    )


def run(
    name: str,
    plan: Container,
    image: Input[str],
    node_id: Input[str],
    with_files: Files,
    manager: SparkAccess,
    opts: ResourceOptions,
) -> docker.Service:
    """`node_id`: of the Spark in its Swarm; host names are not unique there."""
    gpu = docker.ServiceTaskSpecResourcesReservationGenericResourcesArgs(discrete_resources_specs=[f"{GPU_KIND}=1"])
    return docker.Service(
        name,
        name=service_name(plan),
        labels=[docker.ServiceLabelArgs(label="dgx-spark.stack", value=plan.labels["dgx-spark.stack"])],
        mode=docker.ServiceModeArgs(replicated=docker.ServiceModeReplicatedArgs(replicas=1)),
        task_spec=docker.ServiceTaskSpecArgs(
            container_spec=_container(plan, image, with_files),
            resources=docker.ServiceTaskSpecResourcesArgs(
                reservation=docker.ServiceTaskSpecResourcesReservationArgs(generic_resources=gpu)
            ),
            placement=docker.ServiceTaskSpecPlacementArgs(constraints=[Output.concat("node.id==", node_id)]),
            networks_advanceds=[docker.ServiceTaskSpecNetworksAdvancedArgs(id="host")],
            restart_policy=docker.ServiceTaskSpecRestartPolicyArgs(
                condition="on-failure", max_attempts=plan.retries, delay="5s", window="0s"
            ),
        ),
        endpoint_spec=docker.ServiceEndpointSpecArgs(mode="dnsrr"),
        # Two ranks of one GPU don't fit side by side: the old task ends first.
        update_config=docker.ServiceUpdateConfigArgs(order="stop-first"),
        converge_config=docker.ServiceConvergeConfigArgs(delay="1s", timeout=CONVERGE_LIMIT),
        opts=ResourceOptions.merge(
            ResourceOptions(
                provider=manager.provider,
                hooks=manager.hooks,
                # Swarm stores its own id of the host network, which every preview would show as a change.
                ignore_changes=["taskSpec.networksAdvanceds"],
            ),
            opts,
        ),
    )


def _container(plan: Container, image: Input[str], with_files: Files) -> docker.ServiceTaskSpecContainerSpecArgs:
    return docker.ServiceTaskSpecContainerSpecArgs(
        image=image,
        commands=list(plan.entrypoint) if plan.entrypoint is not None else None,
        args=[*plan.runner, *(hidden(plan, word) for word in plan.command)],
        env=dict(plan.environment),
        labels=[
            docker.ServiceTaskSpecContainerSpecLabelArgs(label=key, value=value)
            for key, value in sorted(plan.labels.items())
        ],
        mounts=[
            docker.ServiceTaskSpecContainerSpecMountArgs(
                type="volume" if mount.is_volume else "bind",
                source=source(mount, image),
                target=mount.target,
                read_only=mount.read_only,
            )
            for mount in plan.mounts
        ],
        configs=[
            docker.ServiceTaskSpecContainerSpecConfigArgs(config_id=made.id, config_name=made.name, file_name=path)
            for (path, content), made in with_files.configs.items()
            if plan.files.get(path) == content
        ],
        secrets=[
            docker.ServiceTaskSpecContainerSpecSecretArgs(
                secret_id=made.id, secret_name=made.name, file_name=path, file_mode=0o400
            )
            for path, made in with_files.secrets.items()
        ],
        cap_adds=list(plan.capabilities),
        cap_drops=["ALL"],
        stop_grace_period=duration(plan.grace),
    )


def duration(seconds: int) -> str:
    """As the provider reads it back: written otherwise, each preview would show a change.

    Source: terraform-provider-docker, resource_docker_service_structures.go, shortDur; Go, time.Duration.String.
    """
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes or (hours and seconds) else ""]
    return "".join([*parts, f"{seconds}s" if seconds or not (hours or minutes) else ""])
