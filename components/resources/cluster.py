"""Everything that one stack converges; the only thing that a program builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pulumi
from pulumi import ComponentResource, Resource, ResourceOptions

from components.plan import beside, models
from components.plan.values import Plan, Staged
from components.problems import Severity
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

    settings: Settings
    plan: Plan
    image_id: pulumi.Output[str]
    """Id of the image that the head runs."""

    def __init__(self, name: str, settings: Settings, plan: Plan, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:cluster:Cluster", name, {"engine": settings.engine, "model": plan.model.repo}, opts)
        self.settings, self.plan = settings, plan
        self._name = name
        self._child = ResourceOptions(parent=self)
        self._nodes = self._spark_nodes()
        self._sparks = {name: node.access for name, node in self._nodes.items()}
        # What takes the Sparks for this stack.
        taken: list[Resource] = [node.lease for node in self._nodes.values()]
        fabric = self._fabric(taken)
        link = [*taken, *fabric]
        image = EngineImage(f"{name}-image", EngineImageArgs(plan.image, self._sparks, taken, needs=link), self._child)
        weights = self._weights(taken, [*link, image])
        evicted = self._evict([image, *weights])
        # Where another stack's containers run, theirs go before ours come: both want the same ports.
        taken_over = evicted if plan.takes_over else []
        ray = self._ray(image, [*fabric, image, *taken_over])
        # Its settings may restart Docker, which evictions need.
        swarm = self._swarm([*fabric, *weights, *evicted])
        formed = [part for part in (ray, swarm) if part is not None]
        server = self._server(image, ray, swarm, taken=taken, needs=[*fabric, *weights, *evicted, *formed])
        self._endpoint(server)
        self._extras([*taken, *taken_over])
        self.image_id = image.ids[plan.nodes[0]]
        self.register_outputs({"apiBase": plan.api_base})

    def tell(self) -> None:
        """Say what should be known beforehand, each at the resource that it is about."""
        for warning in self.plan.warnings:
            about = self._nodes.get(warning.at.partition(":")[0], self)
            (pulumi.info if warning.severity is Severity.NOTE else pulumi.warn)(str(warning), about)

    def _spark_nodes(self) -> dict[str, SparkNode]:
        return {
            node.name: SparkNode(
                node.name,
                SparkNodeArgs(node, self.settings, self.plan.identity.full, step, self.plan.ways[node.name]),
                self._child,
            )
            for node, step in zip(self.settings.nodes, self.plan.preparation, strict=True)
        }

    def _fabric(self, needs: Sequence[Resource]) -> list[Resource]:
        """Empty with one Spark."""
        if not self.plan.fabric:
            return []
        args = FabricArgs(self.plan.fabric, self.plan.qualification, self.settings, self._sparks, needs)
        return [Fabric(f"{self._name}-fabric", args, self._child)]

    def _weights(self, taken: Sequence[Resource], needs: Sequence[Resource]) -> list[ModelWeights]:
        """Of the model that is served, then of its draft; those of staged models come after: copies slow each other."""
        plan = self.plan
        args = ModelWeightsArgs(
            repo=plan.model.repo,
            steps=plan.weights,
            copy_keys=plan.copy_keys,
            authorizations=plan.authorizations,
            sparks=self._sparks,
            token=self.settings.hf_token.get_secret_value(),
            taken=taken,
            needs=needs,
        )
        served = [ModelWeights(f"{self._name}-weights", args, self._child)]

        def later(other: Staged) -> ModelWeightsArgs:
            return replace(
                args, repo=other.repo, steps=other.weights, copy_keys=(), authorizations=(), needs=[*needs, *served]
            )

        if plan.draft:
            served.append(ModelWeights(f"{self._name}-draft", later(plan.draft), self._child))
        for staged in plan.staged:
            ModelWeights(f"{self._name}-{models.staged_kind(staged.repo)}", later(staged), self._child)
        return served

    def _evict(self, needs: Sequence[Resource]) -> list[Resource]:
        """Stops what must not run beside the new server, once that one's image and weights are in place."""
        after = ResourceOptions(parent=self, depends_on=list(needs))
        return [
            self._sparks[step.node].run(f"{self._name}-room-{step.node}", step, after) for step in self.plan.evictions
        ]

    def _ray(self, image: EngineImage, needs: Sequence[Resource]) -> RayCluster | None:
        if self.plan.ray is None:
            return None
        return RayCluster(
            f"{self._name}-ray", RayClusterArgs(self.plan.ray, image.ids, self._sparks, needs), self._child
        )

    def _swarm(self, needs: Sequence[Resource]) -> SwarmCluster | None:
        if self.plan.swarm is None:
            return None
        return SwarmCluster(f"{self._name}-swarm", SwarmClusterArgs(self.plan.swarm, self._sparks, needs), self._child)

    def _server(
        self,
        image: EngineImage,
        ray: RayCluster | None,
        swarm: SwarmCluster | None,
        *,
        taken: Sequence[Resource],
        needs: Sequence[Resource],
    ) -> InferenceServer:
        plan = self.plan
        args = InferenceServerArgs(
            identity=plan.identity,
            ranks=plan.ranks,
            images=image.ids,
            sparks=self._sparks,
            ray=ray.containers if ray else {},
            swarm=swarm.nodes if swarm else {},
            rank_key=plan.rank_key,
            api_key_path=plan.api_key_path,
            api_key_file=plan.api_key_file if self.settings.api_key.get_secret_value() else "",
            taken=taken,
            needs=needs,
        )
        return InferenceServer(f"{self._name}-server", args, self._child)

    def _endpoint(self, server: InferenceServer) -> None:
        plan = self.plan
        args = EndpointArgs(
            settings=self.settings,
            readiness=plan.readiness,
            api_base=plan.api_base,
            ranks=server.ids,
            generation=plan.endpoint_generation,
            stack=plan.identity.full,
        )
        Endpoint(f"{self._name}-endpoint", args, self._child)

    def _extras(self, needs: Sequence[Resource]) -> None:
        if self.plan.extras:
            secrets = beside.secrets(self.settings)
            args = ExtrasArgs(self.plan.identity, self.plan.extras, self._sparks, secrets, needs)
            Extras(f"{self._name}-beside", args, self._child)
