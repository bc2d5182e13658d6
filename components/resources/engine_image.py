"""The engine's image on every Spark, the same one, with what the engine needs inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.plan.values import Images, Step
from components.resources.access import SparkAccess

PULL_LIMIT = "3h"
"""An engine's image is 20 GB and more; a slow line takes its time."""


@dataclass(frozen=True)
class EngineImageArgs:
    image: Images
    sparks: Mapping[str, SparkAccess]
    """Head first."""

    taken: Sequence[Resource]
    """What takes the Sparks for this stack: enough for the keys of copies."""

    needs: Sequence[Resource]
    """The Sparks taken for this stack, and the link that copies take."""


class EngineImage(ComponentResource):
    """Pulled on every Spark, or pulled or built on the head and streamed over the fabric, from Spark to Spark.

    Refused unless all hold the same, and one version of Ray.
    """

    ids: dict[str, Output[str]]
    """Node → id of the image to run there."""

    def __init__(self, name: str, args: EngineImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("dgx-spark:image:EngineImage", name, {"image": args.image.name}, opts)
        self._name, self._args = name, args
        self._child = ResourceOptions(parent=self, depends_on=list(args.needs))
        head = next(iter(args.sparks))
        if args.image.source == "pull":
            self.ids = self._ids(self._looked_at({node: self._pull(node) for node in args.sparks}))
        else:
            first = self._pull(head) if args.image.build is None else self._build()
            found = self._looked_at({head: first})
            self.ids = {**self._ids(found), **self._copies(found[head])}
        self.register_outputs({"ids": self.ids})

    def _pull(self, node: str) -> Output[str]:
        return docker.RemoteImage(
            f"{self._name}-{node}",
            name=self._args.image.name,
            # The next model uses the same image: a destroy must not cost another 20 GB.
            keep_locally=True,
            opts=ResourceOptions(
                parent=self,
                depends_on=list(self._args.needs),
                provider=self._args.sparks[node].provider,
                custom_timeouts=pulumi.CustomTimeouts(create=PULL_LIMIT, update=PULL_LIMIT),
            ),
        ).image_id

    def _build(self) -> Output[str]:
        step = self._args.image.build
        assert step is not None
        return self._args.sparks[step.node].run(f"{self._name}-build", step, self._child).stdout

    def _looked_at(self, pulled: Mapping[str, Output[str]]) -> dict[str, Output[str]]:
        """Node → what scripts/image.py answers there, or where nothing has to be known the image's id alone."""
        steps = self._args.image.looks
        if not steps:
            return {node: image.apply(lambda id_: json.dumps({"image": id_})) for node, image in pulled.items()}
        return {
            node: self._args.sparks[node]
            .run(
                f"{self._name}-with-{node}",
                steps[node],
                self._child,
                outputs={"image": image},
                triggers=(image,),
            )
            .stdout
            for node, image in pulled.items()
        }

    def _ids(self, answers: Mapping[str, Output[str]]) -> dict[str, Output[str]]:
        name = self._args.image.name
        checked = Output.all(**answers).apply(lambda texts: same_images(name, texts))
        return {node: checked[node] for node in answers}

    def _copies(self, answer: Output[str]) -> dict[str, Output[str]]:
        """Node → id, of the Sparks that copy from the one before them; `answer`: of the head."""
        plan, sparks = self._args.image, self._args.sparks
        if not plan.copies:
            return {}
        image, content = _part(answer, "image"), _part(answer, "content")
        # The answer in the state of a stack that an earlier version brought up has none.
        layers = answer.apply(lambda text: json.loads(text).get("layers") or [])
        taken = ResourceOptions(parent=self, depends_on=list(self._args.taken))

        def let_in(before: Step, key: Step) -> Resource:
            public = sparks[key.node].run(f"{self._name}-key-{key.node}", key, taken).stdout
            head = before.node == next(iter(sparks))
            called = f"{self._name}-access" if head else f"{self._name}-access-{before.node}"
            outputs = {"keys": [public], "image": image}
            return sparks[before.node].run(called, before, self._child, outputs=outputs)

        access = [let_in(*hop) for hop in zip(plan.access, plan.keys, strict=True)]
        return {
            step.node: sparks[step.node]
            .run(
                f"{self._name}-copy-{step.node}",
                step,
                ResourceOptions(parent=self, depends_on=[*self._args.needs, *access]),
                outputs={"image": image, "content": content, "layers": layers},
                triggers=(image,),
            )
            .stdout
            for step in plan.copies
        }


def _part(answer: Output[str], key: str) -> Output[str]:
    return answer.apply(lambda text: str(json.loads(text)[key]))


def same_images(name: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Node → image id, from the answers of scripts/image.py.

    Refuses Sparks whose tag stands for images that hold different things, or whose images have different versions of
    Ray. Equal images may have different ids (scripts/shared/images.py, content_of).
    """
    answers = {node: json.loads(text) for node, text in texts.items()}
    if len({answer.get("base_content") for answer in answers.values()}) > 1:
        found = "\n".join(f"  {node}: {answer['base']}" for node, answer in answers.items())
        raise pulumi.RunError(
            f"{name} is a different image on each Spark:\n{found}\n"
            f"  → remove it where it is old (`docker image rm {name}`) and run `pulumi up` again, or let the head "
            "copy its own to the others: `pulumi config set --path image.source copy`"
        )
    if len({answer.get("ray") for answer in answers.values()}) > 1:
        found = "\n".join(f"  {node}: Ray {answer['ray']} in {answer['image']}" for node, answer in answers.items())
        raise pulumi.RunError(
            f"Ray must be the same on every Spark:\n{found}\n"
            "  → let the head copy its image to the others: `pulumi config set --path image.source copy`"
        )
    return {node: str(answer["image"]) for node, answer in answers.items()}
