"""One Spark: how it is reached, and that it is taken for this stack."""

from __future__ import annotations

from dataclasses import dataclass

from pulumi import ComponentResource, ResourceOptions

from components.plan.values import Step
from components.remote import ssh
from components.remote.ssh import Way
from components.resources import access, clearing
from components.settings import Node, Settings


@dataclass(frozen=True)
class SparkNodeArgs:
    node: Node
    settings: Settings
    stack: str
    """ORG/PROJECT/STACK"""

    preparation: Step
    way: Way


class SparkNode(ComponentResource):
    """A DGX Spark with its docker provider, scripts, cache directory and lease."""

    access: access.SparkAccess
    """For the components that put something on this Spark."""

    def __init__(self, name: str, args: SparkNodeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:node:SparkNode", name, {"host": args.node.host}, opts)
        child = ResourceOptions(parent=self)
        self.access = access.SparkAccess(
            node=args.node.name,
            stack=args.stack,
            connection=access.connection(args.way),
            provider=access.provider(f"{name}-docker", args.node, args.settings, child),
            hooks=clearing.hooks(f"{name}-clear", ssh.target(args.node, args.settings.ssh), args.stack),
        )
        self.lease = self.access.take(f"{name}-lease", args.preparation, child)
        self.register_outputs({})
