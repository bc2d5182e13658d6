"""What runs beside the server, as docker resources (components/plan/beside.py decides what)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import Extra, Identity
from components.resources.access import SparkAccess


@dataclass(frozen=True)
class ExtrasArgs:
    identity: Identity
    extras: Sequence[Extra]
    sparks: Mapping[str, SparkAccess]
    secrets: Mapping[str, str]
    """Path in a container → content."""

    needs: Sequence[Resource]


class Extras(ComponentResource):
    """Monitoring, gateway and chat. None of them is waited for, and none holds the endpoint up."""

    def __init__(self, name: str, args: ExtrasArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:extras:Extras", name, {}, opts)
        self._name, self._args = name, args
        for extra in args.extras:
            self._run(extra)
        self.register_outputs({})

    def _run(self, extra: Extra) -> None:
        provider = self._args.sparks[extra.node].provider
        # Removed with the stack: they are small, and other stacks name their own.
        options = ResourceOptions(parent=self, provider=provider, depends_on=list(self._args.needs))
        name = f"{self._name}-{extra.role}-{extra.node}"
        image = docker.RemoteImage(f"{name}-image", name=extra.image, keep_locally=True, opts=options)
        docker.Container(
            name,
            name=self._args.identity.container(extra.role),
            image=image.image_id,
            command=list(extra.command) or None,
            entrypoints=list(extra.entrypoint) if extra.entrypoint else None,
            envs=[f"{key}={value}" for key, value in sorted(extra.environment.items())] or None,
            network_mode="host",
            # Of what they do on a Spark nothing needs more than a process without rights.
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges=true"],
            gpus="all" if extra.gpu else None,
            volumes=self._volumes(extra, name, options),
            uploads=self._uploads(extra) or None,
            labels=[
                docker.ContainerLabelArgs(label=key, value=value) for key, value in sorted(self._labels(extra).items())
            ],
            restart="unless-stopped",
            destroy_grace_seconds=10,
            opts=ResourceOptions.merge(options, ResourceOptions(hooks=self._args.sparks[extra.node].hooks)),
        )

    def _uploads(self, extra: Extra) -> list[docker.ContainerUploadArgs]:
        """Those that are no secrets in base64: what is JSON or YAML, as dashboards are, `pulumi preview --diff` would
        print whole, in hundreds of lines."""
        files = {
            path: docker.ContainerUploadArgs(file=path, content_base64=base64.b64encode(text.encode()).decode())
            for path, text in extra.files.items()
        }
        secrets = {
            path: docker.ContainerUploadArgs(file=path, content=Output.secret(self._args.secrets[path]))
            for path in extra.secrets
        }
        return [one for _, one in sorted({**files, **secrets}.items())]

    def _labels(self, extra: Extra) -> dict[str, str]:
        return {
            "dgx-spark.project": self._args.identity.project,
            "dgx-spark.stack": self._args.identity.full,
            "dgx-spark.component": extra.role,
            "dgx-spark.ports": ",".join(map(str, extra.ports)),
        }

    def _volumes(self, extra: Extra, name: str, options: ResourceOptions) -> list[docker.ContainerVolumeArgs] | None:
        if extra.host_root:
            return [docker.ContainerVolumeArgs(host_path="/", container_path=extra.host_root, read_only=True)]
        if extra.volume is None:
            return None
        suffix, target = extra.volume
        volume = docker.Volume(
            f"{name}-data",
            name=self._args.identity.container(suffix),
            labels=[docker.VolumeLabelArgs(label="dgx-spark.stack", value=self._args.identity.full)],
            # One without a label, of a former version, keeps what is in it.
            opts=ResourceOptions.merge(options, ResourceOptions(ignore_changes=["labels"])),
        )
        return [docker.ContainerVolumeArgs(volume_name=volume.name, container_path=target)]
