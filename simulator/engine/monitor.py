"""The gRPC side: what the Python SDK calls while the program runs (ResourceMonitor and Engine)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    callback_pb2,
    callback_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)  # fmt: skip

from simulator.engine.deployment import Deployment
from simulator.engine.providers import ProviderError
from simulator.engine.registrations import Registrations
from simulator.engine.registry import UnknownType
from simulator.engine.steps import Goal, Refused
from simulator.engine.values import Properties, struct_from_wire, struct_to_wire

FEATURES: list[Any] = [0, 1, 2, 3, 5, 10]
"""secrets, resourceReferences, outputValues, aliasSpecs, deletedWith, resourceHooks; resource.proto, MonitorFeature."""

THREADS = 128
"""Each call blocks a thread until its step is done: fewer than there are resources would stand still."""

LARGE = 400 * 1024 * 1024

INFO, WARNING, ERROR = 1, 2, 3


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    def __init__(self, deployment: Deployment, registrations: Registrations, end_program: Callable[[], None]) -> None:
        self._deployment, self._registrations, self._end_program = deployment, registrations, end_program
        self.state_ready = threading.Event()
        """The state has been refreshed: registrations may be compared with it."""

        self.program_done, self.engine_done = threading.Event(), threading.Event()
        self._hooks: dict[str, Any] = {}
        """Name → how to call it (RegisterResourceHookRequest)."""

        deployment.before_create = self._before_create

    def GetDeploymentInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.state_ready.wait()
        store = self._deployment.store
        return resource_pb2.DeploymentInfo(
            project=store.project,
            stack=store.stack,
            organization="organization",
            dryRun=self._deployment.dry_run,
            parallel=16,
            supportedFeatures=FEATURES,
        )

    def RegisterResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        unsupported = [
            name for name in ("aliases", "aliasURNs", "importId", "transforms", "replace_with") if _set(request, name)
        ]
        if unsupported or request.remote:
            self._abort(
                context, f"the hermetic engine does not know {unsupported or 'remote components'} ({request.name})"
            )
        goal = Goal(
            type=request.type,
            name=request.name,
            custom=request.custom,
            parent=request.parent,
            inputs=struct_from_wire(request.object),
            provider=request.provider,
            dependencies=list(request.dependencies),
            property_dependencies={k: sorted(v.urns) for k, v in request.propertyDependencies.items() if v.urns},
            delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            replace_on_changes=list(request.replaceOnChanges),
            ignore_changes=list(request.ignoreChanges),
            additional_secret_outputs=list(request.additionalSecretOutputs),
            protect=request.protect if request.HasField("protect") else False,
            retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else False,
            deleted_with=request.deletedWith,
            before_create=list(request.hooks.before_create),
        )
        try:
            made = self._registrations.register(goal)
        except (ProviderError, UnknownType) as error:
            self._deployment.failed = True
            self._deployment.events.failed(f"::::{request.type}::{request.name}", str(error))
            self._terminate(context)
        except Refused:
            self._terminate(context)
        return resource_pb2.RegisterResourceResponse(urn=made.urn, id=made.id, object=struct_to_wire(made.outputs))

    def RegisterResourceOutputs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._registrations.outputs(request.urn, struct_from_wire(request.outputs))
        return empty_pb2.Empty()

    def RegisterResourceHook(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._hooks[request.name] = request
        return empty_pb2.Empty()

    def _before_create(self, urn: str, goal: Goal) -> None:
        """Raises ProviderError with a hook's own words where it does not let the resource be made."""
        for name in goal.before_create:
            hook = self._hooks[name]
            if self._deployment.dry_run and not hook.on_dry_run:
                continue
            about = resource_pb2.ResourceHookRequest(
                urn=urn, name=goal.name, type=goal.type, new_inputs=struct_to_wire(goal.inputs)
            )
            call = callback_pb2.CallbackInvokeRequest(token=hook.callback.token, request=about.SerializeToString())
            with grpc.insecure_channel(hook.callback.target) as channel:
                answer = callback_pb2_grpc.CallbacksStub(channel).Invoke(call)
            said = resource_pb2.ResourceHookResponse.FromString(answer.response)
            if said.error:
                raise ProviderError(f'before hook "{name}" failed: {said.error}')

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.tok == "pulumi:pulumi:readStackResourceOutputs":
            return _returned({"outputs": self._deployment.saved_outputs()})
        self._abort(context, f"the hermetic engine has no function {request.tok}")

    def SignalAndWaitForShutdown(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.program_done.set()
        self.engine_done.wait()
        return empty_pb2.Empty()

    def _abort(self, context: grpc.ServicerContext, reason: str) -> None:
        self._deployment.failed = True
        self._deployment.events.failed("", reason)
        self._terminate(context)

    def _terminate(self, context: grpc.ServicerContext) -> None:
        self._end_program()
        context.abort(grpc.StatusCode.UNAVAILABLE, "resource monitor shut down while waiting on step's done channel")


def _returned(answer: Properties) -> Any:
    response: Any = resource_pb2.ResourceInvokeResponse
    # `return` is a keyword, so the field can't be named in the call.
    return response(**{"return": struct_to_wire(answer)})


def _set(request: Any, name: str) -> bool:
    return bool(getattr(request, name, None))


class Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self, on_log: Callable[[int, str, str], None]) -> None:
        self._on_log = on_log

    def Log(self, request: Any, context: grpc.ServicerContext) -> Any:
        # The SDK's word for a run that this side has ended; the reason has been shown.
        if request.severity >= INFO and not request.message.startswith("Resource monitor has terminated"):
            self._on_log(request.severity, request.urn, request.message)
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        return engine_pb2.GetRootResourceResponse()

    def SetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        return engine_pb2.SetRootResourceResponse()


def serve(monitor: Monitor, engine: Engine) -> tuple[grpc.Server, str]:
    options = [("grpc.max_receive_message_length", LARGE), ("grpc.max_send_message_length", LARGE)]
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=options)
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
