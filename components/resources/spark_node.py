"""One Spark: how it is reached, and that it is taken for this stack."""

from __future__ import annotations

from dataclasses import dataclass

from pulumi import ComponentResource, ResourceOptions

from components.plan.values import Step
from components.remote import parcel
from components.remote.ssh import Way
from components.resources import access
from components.settings import Node, Settings


@dataclass(frozen=True)
class SparkNodeArgs:
    node: Node
    settings: Settings
    preparation: Step
    way: Way


class SparkNode(ComponentResource):
    """A DGX Spark with its docker provider, state directory, cache directory and lease."""

    access: access.SparkAccess
    """For the components that put something on this Spark."""

    def __init__(self, name: str, args: SparkNodeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:node:SparkNode", name, {"host": args.node.host}, opts)
        child = ResourceOptions(parent=self)
        self.access = access.SparkAccess(
            node=args.node.name,
            connection=access.connection(args.way),
            provider=access.provider(f"{name}-docker", args.node, args.settings, child),
        )
        stack = args.preparation.given["stack"]
        undo = {
            "command": parcel.command("swarm_host.py", "remove", limit=300, root=True),
            "stdin": parcel.text("swarm_host.py", {"record": {"stack": stack, "kind": "swarm-host"}}),
        }
        self.lease = self.access.run(f"{name}-lease", args.preparation, child, more={"host": undo})
        self.register_outputs({})
