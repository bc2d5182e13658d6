"""One Spark: how it is reached, and that it is taken for this stack."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi import ComponentResource, ResourceOptions

from components import access
from components.plan import Step
from components.settings import Node, Settings


@dataclass(frozen=True)
class SparkNodeArgs:
    node: Node
    settings: Settings
    preparation: Step
    private_key: pulumi.Output[str] | None


class SparkNode(ComponentResource):
    """A DGX Spark with its docker provider, state directory, cache directory and lease."""

    access: access.SparkAccess
    """For the components that put something on this Spark."""

    def __init__(self, name: str, args: SparkNodeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:node:SparkNode", name, {"host": args.node.host}, opts)
        child = ResourceOptions(parent=self)
        self.access = access.SparkAccess(
            node=args.node.name,
            connection=access.connection(args.node, args.settings, args.private_key),
            provider=access.provider(f"{name}-docker", args.node, args.settings, child),
        )
        self.lease = self.access.run(f"{name}-lease", args.preparation, child)
        self.register_outputs({})
