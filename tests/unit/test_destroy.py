"""`./spark destroy`: what a Spark that is away keeps, by the state."""

from ops.destroy import in_docker, stays

PROVIDER = "urn:pulumi:x::dgx-spark::dgx-spark:cluster:Cluster$pulumi:providers:docker::spark-2-docker::1f2e"


def made(type_, name, provider=PROVIDER):
    return {"urn": f"urn:…::{name}", "type": type_, "provider": provider, "inputs": {"name": name}}


def test_what_the_state_has_in_a_sparks_docker_is_named_and_images_are_not():
    found = in_docker(
        [
            made("docker:index/container:Container", "dgx-spark-x-server"),
            made("docker:index/volume:Volume", "dgx-spark-x-ray"),
            made("docker:index/remoteImage:RemoteImage", "vllm:1"),
            made("docker:index/container:Container", "other", PROVIDER.replace("spark-2", "spark-1")),
            made("command:remote:Command", "weights", "urn:pulumi:x::p::pulumi:providers:command::default::1"),
            {"urn": "urn:…::stack", "type": "pulumi:pulumi:Stack"},
        ]
    )
    assert found == {"spark-2": ["dgx-spark-x-ray", "dgx-spark-x-server"], "spark-1": ["other"]}
    assert stays("spark-2", found["spark-2"]).startswith(
        "spark-2 keeps, until it is back: dgx-spark-x-ray, dgx-spark-x-server; and the stack's lease"
    )
