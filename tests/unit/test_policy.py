"""The rules of policy/, on what the program registers and on what an administrator would refuse."""

import json

import pytest

from ops import policy, pulumi
from ops.project import Project
from policy.rules import violations
from tests.program.record import run

DIGEST = "@sha256:" + "1" * 64
PINNED = {"engine": "sglang", "image": {"name": f"lmsysorg/sglang:v0.5.21{DIGEST}"}, "apiKey": "sk-of-the-engine"}


def broken(made):
    """(rule, resource) of a whole program."""
    return {
        (rule.name, name)
        for name, request in made.requests.items()
        for rule, _ in violations(request.type, made.inputs(name))
    }


@pytest.mark.parametrize("serving", [{}, {"executor": "ray"}, {"host": "127.0.0.1"}])
def test_a_pinned_stack_with_a_key_keeps_every_rule(tmp_path, monkeypatch, serving):
    engine = "vllm" if "executor" in serving else "sglang"
    config = {**PINNED, "engine": engine, "image": {"name": f"a/{engine}:v0.33.0{DIGEST}"}, "serving": serving}
    assert broken(run(tmp_path, monkeypatch, **config)) == set()


def test_an_open_api_is_refused_and_on_loopback_it_is_not_open(tmp_path, monkeypatch):
    wide = {**PINNED, "apiKey": ""}
    assert broken(run(tmp_path, monkeypatch, **wide)) == {("no-open-api", "cluster-server-spark-1")}
    assert broken(run(tmp_path, monkeypatch, **wide, serving={"host": "127.0.0.1"})) == set()


@pytest.mark.parametrize("launcher", ["mpi", "swarm"])
def test_tensorrt_llm_can_ask_for_no_key_and_so_is_refused_on_any_address_but_loopback(tmp_path, monkeypatch, launcher):
    image = {"name": f"nvcr.io/nvidia/tensorrt-llm/release:1.2.1{DIGEST}"}
    config = {"engine": "trtllm", "image": image, "serving": {"launcher": launcher}}
    assert broken(run(tmp_path, monkeypatch, **config)) == {("no-open-api", "cluster-server-spark-1")}
    config["serving"]["host"] = "127.0.0.1"
    assert broken(run(tmp_path, monkeypatch, **config)) == set()


def test_privileged_containers_are_refused_each_of_them(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, **PINNED, containers={"privileged": True})
    assert broken(made) == {("no-privileged", "cluster-server-spark-1"), ("no-privileged", "cluster-server-spark-2")}


def test_an_image_without_its_digest_is_named(tmp_path, monkeypatch):
    made = run(tmp_path, monkeypatch, **{**PINNED, "image": {"name": "lmsysorg/sglang:v0.5.21"}})
    assert broken(made) == {("pinned-images", "cluster-image-spark-1"), ("pinned-images", "cluster-image-spark-2")}


CONTAINER, SERVICE = "docker:index/container:Container", "docker:index/service:Service"
FINE = {"capabilities": {"drops": ["ALL"]}, "securityOpts": ["no-new-privileges=true"]}
SERVER = {
    **FINE,
    "labels": [
        {"label": f"dgx-spark.{name}", "value": value} for name, value in (("component", "server"), ("rank", "0"))
    ],
    # As Pulumi shows a list that has a secret in it.
    "uploads": "[secret]",
}


@pytest.mark.parametrize(
    ("type_", "inputs", "rules"),
    [
        (CONTAINER, FINE, []),
        (CONTAINER, {}, ["confined", "confined"]),
        (CONTAINER, {**FINE, "capabilities": {"adds": ["SYS_ADMIN"]}}, ["confined"]),
        (CONTAINER, {**FINE, "volumes": [{"hostPath": "/run/docker.sock", "readOnly": True}]}, ["no-writable-mounts"]),
        (CONTAINER, {**FINE, "volumes": [{"hostPath": "/home"}]}, ["no-writable-mounts"]),
        (CONTAINER, {**FINE, "volumes": [{"volumeName": "v"}, {"hostPath": "/home", "readOnly": True}]}, []),
        (CONTAINER, {**SERVER, "command": ["--host=0.0.0.0", "--config=/run/api-key"]}, []),
        (CONTAINER, {**SERVER, "command": ["--host=0.0.0.0"]}, ["no-open-api"]),
        (SERVICE, {"taskSpec": {"containerSpec": {"mounts": [{"type": "volume", "source": "v"}]}}}, ["confined"]),
        (SERVICE, {"taskSpec": {"containerSpec": {"mounts": [{"type": "bind", "source": "/etc"}]}}},
         ["confined", "no-writable-mounts"]),
        ("command:remote:Command", {"connection": {"host": "h", "hostKey": "k"}}, []),
        ("command:remote:Command", {"connection": {"host": "h"}}, ["pinned-host-keys"]),
        (
            "command:remote:Command",
            {"connection": {"host": "h", "hostKey": "k", "proxy": {"host": "j"}}},
            ["pinned-host-keys"],
        ),
        ("command:remote:Command", {"connection": "[secret]"}, []),
        ("pulumi:providers:docker", {"host": "ssh://u@h", "sshOpts": '["-o", "StrictHostKeyChecking=yes"]'}, []),
        ("pulumi:providers:docker", {"host": "ssh://u@h", "sshOpts": '["-o", "StrictHostKeyChecking=no"]'},
         ["pinned-host-keys"]),
        ("pulumi:providers:docker", {"host": "ssh://u@h"}, ["pinned-host-keys"]),
    ],
)  # fmt: skip
def test_each_rule_sees_what_it_is_there_for(type_, inputs, rules):
    assert [rule.name for rule, _ in violations(type_, inputs)] == rules


def test_a_preview_is_held_against_the_rules_and_what_goes_is_not(capsys):
    def step(name, inputs):
        urn = f"urn:pulumi:s::p::{CONTAINER}::{name}"
        return {"urn": urn, "newState": {"urn": urn, "type": CONTAINER, "inputs": inputs}}

    steps = [step("bad", {**FINE, "privileged": True}), step("good", FINE), {"urn": "x::y", "op": "delete"}]
    found = list(policy.found({"steps": steps}))
    assert not policy.show(found)
    assert capsys.readouterr().out.splitlines() == [
        "· no-privileged: bad is privileged: pulumi config set --path containers.privileged false"
    ]
    assert policy.show([])


def test_what_stays_as_it_is_is_judged_too(tmp_path, monkeypatch):
    def preview(words, *ignored):
        inputs = {**FINE, "privileged": True}
        same = {"op": "same", "newState": {"urn": "x::lives", "type": CONTAINER, "inputs": inputs}}
        # Source: pulumi, pkg/backend/display/display.go, shouldShow.
        return json.dumps({"steps": [same] if "--show-sames" in words else []})

    monkeypatch.setattr(pulumi, "output", preview)
    assert [name for name, _, _ in policy.examine(Project(tmp_path, {}), "s")] == ["lives"]
