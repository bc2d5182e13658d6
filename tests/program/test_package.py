"""The package for other Pulumi languages, over the protocol that Pulumi's engine speaks with providers."""

import asyncio
import json
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pulumi
import pytest
from google.protobuf import empty_pb2
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2, provider_pb2_grpc, resource_pb2, resource_pb2_grpc

from components import package, planning
from components.programs import command
from components.settings import TOP_LEVEL
from simulator.engine.monitor import FEATURES
from simulator.engine.values import Secret, struct_from_wire, struct_to_wire
from tests.program.record import Answers, login
from tests.unit.build import MODEL

ROOT = Path(__file__).parent.parent.parent
NODES = [{"name": f"spark-{n}", "host": f"10.0.0.{n}"} for n in (1, 2)]


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Takes every registration as made, as `Answers` has it."""

    def __init__(self):
        self.answers, self.registered = Answers(2), []

    def GetDeploymentInfo(self, request, context):
        return resource_pb2.DeploymentInfo(
            project="app", stack="dev", organization="organization", supportedFeatures=FEATURES
        )

    def RegisterResource(self, request, context):
        self.registered.append(request)
        inputs = struct_from_wire(request.object)
        args = pulumi.runtime.MockResourceArgs(request.type, request.name, inputs, "", "")
        id_, outputs = self.answers.new_resource(args) if request.custom else ("", inputs)
        urn = f"urn:pulumi:dev::app::{request.type}::{request.name}"
        return resource_pb2.RegisterResourceResponse(urn=urn, id=id_, object=struct_to_wire(outputs))

    def RegisterResourceOutputs(self, request, context):
        return empty_pb2.Empty()

    def RegisterResourceHook(self, request, context):
        return empty_pb2.Empty()

    def Invoke(self, request, context):
        said = self.answers.call(pulumi.runtime.MockCallArgs(token=request.tok, args={}, provider=""))
        return resource_pb2.ResourceInvokeResponse(**{"return": struct_to_wire(said)})


class Engine(engine_pb2_grpc.EngineServicer):
    def Log(self, request, context):
        return empty_pb2.Empty()


@pytest.fixture
def monitor(monkeypatch):
    served = Monitor()
    served.answers.stand_in(monkeypatch)
    server = grpc.server(futures.ThreadPoolExecutor(64))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(served, server)
    engine_pb2_grpc.add_EngineServicer_to_server(Engine(), server)
    served.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield served
    server.stop(0)


def construct(monitor, **inputs):
    request = provider_pb2.ConstructRequest(
        project="app", stack="dev", name="llm", type=package.TOKEN, monitorEndpoint=monitor.address,
        inputs=struct_to_wire(inputs), parallel=16,
    )  # fmt: skip

    async def ask():
        servicer = ProviderServicer(package.Package(), [], engine_address=monitor.address)
        return await servicer.Construct(request, None)

    try:
        return asyncio.run(ask())
    finally:
        # It leaves none behind, and Pulumi's mocks in the tests that follow expect one.
        asyncio.set_event_loop(asyncio.new_event_loop())


def test_the_component_is_constructed_with_all_that_is_in_it(monitor, tmp_path, monkeypatch):
    monkeypatch.setattr(planning.hold, "hold", lambda settings, stack: [])
    monkeypatch.setattr(planning, "model", lambda settings, head: MODEL)
    monkeypatch.chdir(tmp_path)
    made = construct(monitor, nodes=NODES, ssh={**login(tmp_path, 2), "port": 22}, apiKey=Secret("sk-private"))
    assert made.urn == f"urn:pulumi:dev::app::{package.TOKEN}::llm"
    state = struct_from_wire(made.state)
    assert state["apiBase"] == "http://10.0.0.1:8000/v1"
    assert state["model"] == "openai/gpt-oss-120b"
    names = {request.name: request for request in monitor.registered}
    assert {"llm", "spark-1-lease", "spark-2-lease", "llm-server-spark-1", "llm-endpoint-ready"} <= names.keys()
    assert "sk-private" not in repr(struct_from_wire(names["llm-endpoint-ready"].object))
    # Elsewhere than in this project's folder its modules are found all the same.
    ready = struct_from_wire(names["llm-endpoint-ready"].object)["create"]
    assert ready == f"cd {ROOT} && python3 -m components.programs.readiness"


def test_wrong_inputs_are_refused_in_the_words_of_the_stack_file(monitor, tmp_path):
    with pytest.raises(Exception, match=r"(?s)nodes\[0\]\.por.*is not a setting"):
        construct(monitor, nodes=[{**NODES[0], "por": 1}], ssh=login(tmp_path, 2))
    assert monitor.registered == []


def test_a_secret_in_plain_is_refused(monitor, tmp_path):
    with pytest.raises(Exception, match="apiKey: is a secret"):
        construct(monitor, nodes=NODES, ssh=login(tmp_path, 2), apiKey="sk-private")


def test_the_plugin_as_the_engine_starts_it_serves_a_typed_schema():
    argv = [sys.executable, str(ROOT / "package"), "127.0.0.1:1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as plugin:
        try:
            assert plugin.stdout
            with grpc.insecure_channel(f"127.0.0.1:{plugin.stdout.readline().strip()}") as channel:
                asked = provider_pb2_grpc.ResourceProviderStub(channel).GetSchema(provider_pb2.GetSchemaRequest())
        finally:
            plugin.terminate()
    found = json.loads(asked.schema)
    resource = found["resources"][package.TOKEN]
    assert resource["inputProperties"].keys() == TOP_LEVEL.keys()
    assert resource["requiredInputs"] == ["nodes"]
    assert resource["inputProperties"]["apiKey"]["secret"]
    serving = found["types"]["dgx-spark:cluster:Serving"]["properties"]
    assert serving["maxModelLen"]["type"] == "integer"
    assert serving["extraArgs"]["items"]["type"] == "string"
    references = [word for word in asked.schema.split('"') if word.startswith("#/types/")]
    assert {word.removeprefix("#/types/") for word in references} <= found["types"].keys()


def test_a_project_that_has_the_modules_by_a_link_runs_them_in_its_own_folder(tmp_path, monkeypatch):
    """What has served is kept beside the stack's file, for `./spark rollback`."""
    monkeypatch.chdir(tmp_path)
    assert command("components.programs.readiness").startswith(f"cd {ROOT} && ")
    (tmp_path / "components").symlink_to(ROOT / "components")
    assert command("components.programs.readiness") == "python3 -m components.programs.readiness"
