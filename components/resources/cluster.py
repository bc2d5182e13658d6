"""Everything that one stack converges; the only thing that `__main__.py` builds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
from pulumi import ComponentResource, Resource, ResourceOptions

from components.plan import beside, models
from components.plan.values import Plan
from components.resources.access import SparkAccess
from components.resources.endpoint import Endpoint, EndpointArgs
from components.resources.engine_image import EngineImage, EngineImageArgs
from components.resources.extras import Extras, ExtrasArgs
from components.resources.fabric import Fabric, FabricArgs
from components.resources.inference_server import InferenceServer, InferenceServerArgs
from components.resources.model_weights import ModelWeights, ModelWeightsArgs
from components.resources.ray_cluster import RayCluster, RayClusterArgs
from components.resources.spark_node import SparkNode, SparkNodeArgs
from components.resources.swarm_cluster import SwarmCluster, SwarmClusterArgs
from components.settings import Settings


class Cluster(ComponentResource):
    """One, two or N Sparks that serve one model.

    Nodes, then fabric and image, then weights, then Ray, then the server, then the proof that it answers.
    A change of model touches the weights, the server and the endpoint; everything below stays up.
    """

    plan: Plan
    image_id: pulumi.Output[str]
    """Id of the image that the head runs."""

    def __init__(self, name: str, settings: Settings, plan: Plan, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:cluster:Cluster", name, {"engine": settings.engine, "model": plan.model.repo}, opts)
        self.plan = plan
        self._name, self._settings = name, settings
        self._child = ResourceOptions(parent=self)
        sparks, nodes = self._nodes()
        fabric = None
        if plan.fabric:
            checked = FabricArgs(plan.fabric, plan.qualification, settings, sparks)
            fabric = Fabric(f"{name}-fabric", checked, self._after(nodes))
        image = EngineImage(
            f"{name}-image", EngineImageArgs(plan.image, sparks), self._after([*nodes, *([fabric] if fabric else [])])
        )
        weights = ModelWeights(
            f"{name}-weights", self._weights(sparks, [image, *([fabric] if fabric else [])]), self._after(nodes)
        )
        for staged in plan.staged:
            # After the model that is served, whose copies it would slow down.
            ModelWeights(
                f"{name}-{models.staged_kind(staged.repo)}",
                replace(
                    self._weights(sparks, [weights]),
                    repo=staged.repo,
                    steps=staged.weights,
                    copy_keys=(),
                    authorization=None,
                ),
                self._after(nodes),
            )
        room = self._room(sparks, [image, weights])
        # Where another stack's containers run, theirs go before ours come: both want the same ports.
        ray = self._ray(sparks, image, fabric, room if plan.takes_over else [])
        # Its settings may restart Docker, which room needs.
        swarm = self._swarm(sparks, [weights, *room, *([fabric] if fabric else [])])
        server = InferenceServer(
            f"{name}-server",
            InferenceServerArgs(
                identity=plan.identity,
                ranks=plan.ranks,
                images=image.ids,
                sparks=sparks,
                ray=ray.containers if ray else {},
                swarm=swarm.nodes if swarm else {},
                mpi_key=plan.mpi_key,
                api_key_file=plan.api_key_file if settings.api_key.get_secret_value() else "",
                needs=[weights, *room, *(part for part in (fabric, ray, swarm) if part)],
            ),
            self._child,
        )
        Endpoint(
            f"{name}-endpoint",
            EndpointArgs(
                settings=settings,
                readiness=plan.readiness,
                api_base=plan.api_base,
                ranks=server.ids,
                generation=plan.endpoint_generation,
                stack=plan.identity.full,
            ),
            self._child,
        )
        if plan.extras:
            # Theirs go first where another stack's run, for the same reason as Ray's.
            needs = [*nodes, *(room if plan.takes_over else [])]
            extras = ExtrasArgs(plan.identity, plan.extras, sparks, beside.secrets(settings), needs)
            Extras(f"{name}-beside", extras, self._child)
        self.image_id = image.ids[plan.nodes[0]]
        self.register_outputs({"apiBase": plan.api_base})

    def _nodes(self) -> tuple[dict[str, SparkAccess], list[Resource]]:
        made = {
            node.name: SparkNode(
                node.name, SparkNodeArgs(node, self._settings, step, self.plan.ways[node.name]), self._child
            )
            for node, step in zip(self._settings.nodes, self.plan.preparation, strict=True)
        }
        return {name: node.access for name, node in made.items()}, [node.lease for node in made.values()]

    def _after(self, resources: list[Resource]) -> ResourceOptions:
        return ResourceOptions(parent=self, depends_on=resources)

    def _weights(self, sparks: dict[str, SparkAccess], needs: list[Any]) -> ModelWeightsArgs:
        return ModelWeightsArgs(
            repo=self.plan.model.repo,
            steps=self.plan.weights,
            copy_keys=self.plan.copy_keys,
            authorization=self.plan.authorization,
            sparks=sparks,
            token=self._settings.hf_token.get_secret_value(),
            needs=needs,
        )

    def _swarm(self, sparks: dict[str, SparkAccess], needs: list[Resource]) -> SwarmCluster | None:
        if self.plan.swarm is None:
            return None
        return SwarmCluster(f"{self._name}-swarm", SwarmClusterArgs(self.plan.swarm, sparks, needs), self._child)

    def _room(self, sparks: dict[str, SparkAccess], needs: list[Resource]) -> list[Resource]:
        """Stops what must not run beside the new server, once that one's image and weights are in place."""
        after = self._after(needs)
        return [sparks[step.node].run(f"{self._name}-room-{step.node}", step, after) for step in self.plan.room]

    def _ray(
        self, sparks: dict[str, SparkAccess], image: EngineImage, fabric: Fabric | None, first: list[Resource]
    ) -> RayCluster | None:
        if self.plan.ray is None or fabric is None:
            return None
        return RayCluster(
            f"{self._name}-ray", RayClusterArgs(self.plan.ray, image.ids, sparks, [fabric, image, *first]), self._child
        )
