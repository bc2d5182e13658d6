"""What others have on a Spark, which no fault of a stack may touch."""

from __future__ import annotations

from simulator import sparks
from simulator.layout import Spark
from tests.e2e.conftest import SOME_IMAGE, looks

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBystander bystander"
RUN = f"docker run -d --restart unless-stopped --entrypoint sleep {{words}} {SOME_IMAGE} 100000"
OTHERS = "--label dgx-spark.stack=organization/dgx-spark/another --label dgx-spark.component=server"
CONTAINERS = {"bystander": "-v bystander:/x", "bystander-labelled": OTHERS}
"""Name → how it is run: somebody's own, and one that carries the label of another stack."""

MAKE = "docker exec bystander sh -c 'echo kept > /x/file'; echo kept > ~/bystander"
LOOKS = {
    "containers": f"docker inspect --format '{{{{.Id}}}} {{{{.State.Running}}}}' {' '.join(CONTAINERS)}",
    "volume": "docker exec bystander cat /x/file",
    "file": "cat ~/bystander",
    "key": "grep bystander ~/.ssh/authorized_keys",
}
REMOVE = (
    f"docker rm -f {' '.join(CONTAINERS)}; docker volume rm bystander; rm -f ~/bystander; "
    "sed -i '/ bystander$/d' ~/.ssh/authorized_keys"
)


class Bystander:
    """Containers, a volume, a file and a key."""

    def __init__(self, spark: Spark) -> None:
        self.spark = spark
        self.remove()  # of a run that was ended
        for name, words in CONTAINERS.items():
            sparks.on(spark, RUN.format(words=f"--name {name} {words}"))
        sparks.on(spark, f"{MAKE}; echo '{KEY}' >> ~/.ssh/authorized_keys")
        self._made = looks(spark, LOOKS)
        assert (self._made["volume"], self._made["key"]) == ("kept\n", f"{KEY}\n")

    def assert_untouched(self) -> None:
        assert looks(self.spark, LOOKS) == self._made, f"what others have on {self.spark.name}"

    def remove(self) -> None:
        sparks.on(self.spark, REMOVE, check=False)
