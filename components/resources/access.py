"""How components reach one Spark: the command provider's connection and a docker provider over SSH."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker
from pulumi_command import remote

from components.plan.values import Step
from components.problems import Problem, Refused
from components.remote import parcel, ssh
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


def private_key(settings: Settings) -> pulumi.Output[str] | None:
    """The user's key for the command provider, as a secret; None: a running ssh-agent has it."""
    if settings.ssh.key_file is None:
        return None
    path = Path(settings.ssh.key_file).expanduser()
    fix = "name your key with `pulumi config set --path ssh.privateKeyFile FILE`, or `agent` for a running ssh-agent"
    try:
        key = path.read_text()
    except OSError as error:
        raise Refused([Problem("ssh.privateKeyFile", f"{path}: {error.strerror}", fix)]) from None
    if "PRIVATE KEY" not in key:
        raise Refused([Problem("ssh.privateKeyFile", f"{path} holds no private key", fix)])
    return pulumi.Output.secret(key)


def connection(node: Node, settings: Settings, key: pulumi.Output[str] | None) -> remote.ConnectionArgs:
    return remote.ConnectionArgs(
        host=node.host,
        port=settings.ssh.port,
        user=settings.ssh.user,
        private_key=key,
        host_key=settings.ssh.host_keys[node.name],
        dial_error_limit=DIAL_ERRORS,
        per_dial_timeout=DIAL_TIMEOUT,
    )


def provider(name: str, node: Node, settings: Settings, opts: pulumi.ResourceOptions) -> docker.Provider:
    return docker.Provider(
        name, host=ssh.docker_host(node, settings.ssh), ssh_opts=ssh.options(node, settings.ssh), opts=opts
    )
