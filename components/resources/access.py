"""How components reach one Spark: the command provider's connection and a docker provider over SSH."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_docker as docker
from pulumi_command import remote

from components.plan.values import Step
from components.remote import parcel, ssh
from components.remote.ssh import Way
from components.settings import Node, Settings

DIAL_ERRORS = 3
"""Tries to open a connection. Each may be turned away by sshd's MaxStartups when many commands start at once."""

DIAL_TIMEOUT = 10
"""Seconds for one try."""


@dataclass(frozen=True)
class SparkAccess:
    node: str
    connection: remote.ConnectionArgs
    provider: docker.Provider

    def run(
        self,
        name: str,
        step: Step,
        opts: pulumi.ResourceOptions,
        *,
        more: Mapping[str, Any] | None = None,
        triggers: tuple[Any, ...] = (),
        remove: bool = True,
        secret: bool = False,
    ) -> remote.Command:
        """A step of the plan as a resource.

        more    joins its input and may hold secrets
        remove  whether the script also takes the thing away again
        secret  what it prints is a secret
        """
        given = {**step.given, **(more or {})}
        stdin: pulumi.Input[str] = pulumi.Output.json_dumps(parcel.pack(step.script, given))
        return remote.Command(
            name,
            connection=self.connection,
            create=parcel.command(step.script, "apply", limit=step.limit, root=step.root),
            delete=parcel.command(step.script, "remove", limit=300, root=step.root) if remove else None,
            stdin=pulumi.Output.secret(stdin) if step.secret else stdin,
            triggers=[*step.triggers, *triggers],
            logging=remote.Logging.STDERR,
            # Otherwise the provider sends variables that sshd's AcceptEnv turns away, with a warning each time.
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                # The old record must go first, or its removal would take the new one's place.
                pulumi.ResourceOptions(
                    delete_before_replace=True, additional_secret_outputs=["stdout"] if secret else None
                ),
                opts,
            ),
        )


def connection(way: Way) -> remote.ConnectionArgs:
    through = way.through
    return remote.ConnectionArgs(
        host=way.host,
        port=way.port,
        user=way.user,
        private_key=_secret(way),
        agent_socket_path=way.agent,
        host_key=way.host_key,
        dial_error_limit=DIAL_ERRORS,
        per_dial_timeout=DIAL_TIMEOUT,
        proxy=remote.ProxyConnectionArgs(
            host=through.host,
            port=through.port,
            user=through.user,
            private_key=_secret(through),
            agent_socket_path=through.agent,
            host_key=through.host_key,
            dial_error_limit=DIAL_ERRORS,
            per_dial_timeout=DIAL_TIMEOUT,
        )
        if through
        else None,
    )


def _secret(way: Way) -> pulumi.Output[str] | None:
    """The key; None: a running ssh-agent has it."""
    return pulumi.Output.secret(way.private_key) if way.private_key else None


def provider(name: str, node: Node, settings: Settings, opts: pulumi.ResourceOptions) -> docker.Provider:
    return docker.Provider(
        name, host=ssh.docker_host(node, settings.ssh), ssh_opts=ssh.options(node, settings.ssh), opts=opts
    )
