"""How components reach one Spark: the command provider's connection and a docker provider over SSH."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


REMOVE_LIMIT = 300
"""Seconds to take a thing away again."""


@dataclass(frozen=True)
class SparkAccess:
    node: str
    stack: str
    """ORG/PROJECT/STACK, whose scripts the Spark has."""

    connection: remote.ConnectionArgs
    provider: docker.Provider
    hooks: pulumi.ResourceHookBinding
    """For every container, service, config and secret there (clearing.py)."""

    def run(
        self,
        name: str,
        step: Step,
        opts: pulumi.ResourceOptions,
        *,
        outputs: Mapping[str, Any] | None = None,
        triggers: tuple[Any, ...] = (),
        remove: bool = True,
        secret: bool = False,
    ) -> remote.Command:
        """A step of the plan as a resource.

        outputs  of other steps, which join its inputs; may be secrets
        remove   whether the script also takes the thing away again
        secret   what it prints is a secret
        """
        apply, undo = (
            parcel.command_there(self.stack, step.script, verb, limit=limit, root=step.root)
            for verb, limit in (("apply", step.limit), ("remove", REMOVE_LIMIT))
        )
        inputs: pulumi.Input[str] = pulumi.Output.json_dumps({**step.inputs, **(outputs or {})})
        stdin = pulumi.Output.secret(inputs) if step.secret else inputs
        triggered = [*step.triggers, *triggers]
        return self._command(name, apply, undo if remove else None, stdin, triggered, opts, secret=secret)

    def take(self, name: str, step: Step, opts: pulumi.ResourceOptions) -> remote.Command:
        """The first step, which brings the scripts of all others, and has to take everything away in the end.

        It has no triggers: it is done again in place, and removed only when the stack gives the Spark back. Former
        versions gave it some, which stay.
        """
        return self._command(
            name,
            parcel.command(step.script, "apply", limit=step.limit),
            parcel.command(step.script, "remove", limit=REMOVE_LIMIT),
            json.dumps(parcel.pack_all(step.inputs)),
            (),
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(ignore_changes=["triggers"])),
        )

    def _command(
        self,
        name: str,
        create: str,
        delete: str | None,
        stdin: pulumi.Input[str],
        triggers: Sequence[Any],
        opts: pulumi.ResourceOptions,
        *,
        secret: bool = False,
    ) -> remote.Command:
        return remote.Command(
            name,
            connection=self.connection,
            create=create,
            delete=delete,
            stdin=stdin,
            triggers=list(triggers) or None,
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
    return remote.ConnectionArgs(
        **_dialled(way), proxy=remote.ProxyConnectionArgs(**_dialled(way.through)) if way.through else None
    )


def _dialled(way: Way) -> dict[str, Any]:
    """What the provider wants to know of each machine on the way."""
    return {
        "host": way.host,
        "port": way.port,
        "user": way.user,
        # None: a running ssh-agent has it.
        "private_key": pulumi.Output.secret(way.private_key) if way.private_key else None,
        "agent_socket_path": way.agent,
        "host_key": way.host_key,
        "dial_error_limit": DIAL_ERRORS,
        "per_dial_timeout": DIAL_TIMEOUT,
    }


def provider(name: str, node: Node, settings: Settings, opts: pulumi.ResourceOptions) -> docker.Provider:
    return docker.Provider(
        name, host=ssh.docker_host(node, settings.ssh), ssh_opts=ssh.options(node, settings.ssh), opts=opts
    )
