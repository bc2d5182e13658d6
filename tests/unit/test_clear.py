"""Way for what Pulumi is about to make: this stack's own goes, and nothing of others."""

from __future__ import annotations

import json

import pytest

from tests.unit.home import STACK

NAME = "dgx-spark-test-server"


@pytest.fixture
def spark(host):
    """A Spark whose Docker says on stdout what it was asked to do."""
    host.program("docker", f'echo "$@" >> {host.root}/asked')
    return host


def asked(host):
    path = host.root / "asked"
    return path.read_text().splitlines() if path.exists() else []


def clear(host, name=NAME):
    return host.run("clear.py", "apply", stack=STACK, kind="container", name=name, wanted=None)


def with_container(host, **labels):
    host.docker({f"/containers/{NAME}/json": {"Id": "0123456789abcdef", "Config": {"Labels": labels or None}}})


@pytest.mark.parametrize(("component", "seconds"), [("server", 60), ("ray-head", 60), ("gpu-exporter", 10)])
def test_the_stacks_own_container_of_that_name_goes_with_the_time_that_it_may_need(spark, component, seconds):
    with_container(spark, **{"dgx-spark.stack": STACK, "dgx-spark.component": component})
    done = clear(spark)
    assert (done.returncode, done.stderr) == (0, f"removing the container {NAME}, which the state does not know\n")
    assert asked(spark) == [f"stop --time {seconds} 0123456789abcdef", "rm --force --volumes 0123456789abcdef"]


def test_where_none_has_that_name_nothing_is_done(spark):
    with_container(spark, **{"dgx-spark.stack": STACK})
    assert clear(spark, "dgx-spark-test-chat").returncode == 0
    assert asked(spark) == []


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "not this stack's"), ({"dgx-spark.stack": f"{STACK}2"}, f"the stack {STACK}2's")],
)
def test_a_container_of_others_stays_and_the_run_ends_with_its_name(spark, labels, whose):
    with_container(spark, **labels)
    done = clear(spark)
    assert done.returncode == 1
    assert done.stderr.strip() == f"there is a container {NAME} already, and it is {whose}: rename or remove it"
    assert asked(spark) == []


def test_on_a_spark_that_another_stack_has_taken_meanwhile_nothing_is_made(spark):
    with_container(spark, **{"dgx-spark.stack": STACK})
    lease = spark.path / ".local/state/dgx-spark/lease.json"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps({"stack": "organization/dgx-spark/other"}))
    done = clear(spark)
    assert done.returncode == 1
    assert "this Spark is held by the stack organization/dgx-spark/other" in done.stderr
    assert asked(spark) == []


def swarm(spark, *services):
    """A manager: a config, and services that have it. `docker` knows the config until it is removed."""
    spark.program(
        "docker",
        f"""echo "$@" >> {spark.root}/asked
case "$*" in
    "config inspect files") ! grep -q "config rm" {spark.root}/asked ;;
    "service inspect server") ! grep -q "service rm server" {spark.root}/asked ;;
esac""",
    )
    about = {"ID": "c1", "Spec": {"Labels": {"dgx-spark.stack": STACK}}}
    spark.docker({"/configs/files": about, "/services": list(services), "/services/server": {**about, "ID": "s1"}})


def service(id_, *configs):
    held = [{"ConfigID": one} for one in configs]
    return {"ID": id_, "Spec": {"TaskTemplate": {"ContainerSpec": {"Configs": held}}}}


def remove(spark, kind, name):
    return spark.run("clear.py", "apply", stack=STACK, kind=kind, name=name, wanted=None)


def test_a_config_goes_with_the_services_that_have_it_and_no_others(spark):
    swarm(spark, service("s1", "c0", "c1"), service("s2", "c0"))
    done = remove(spark, "config", "files")
    assert (done.returncode, done.stderr) == (0, "removing the config files, which the state does not know\n")
    assert asked(spark)[1:] == ["service rm s1", "config rm files"]


def test_a_service_goes_alone(spark):
    swarm(spark, service("s1", "c1"), service("s2", "c1"))
    assert remove(spark, "service", "server").returncode == 0
    assert asked(spark)[1:] == ["service rm server"]
