"""What is served and how: the engines, and what they stand on."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from components import ports
from components.settings.words import Frozen, ImageName, Port, Text

DraftMethod = Literal["mtp", "eagle", "eagle3", "dflash", "dspark", "draft_model", "ngram"]
"""How tokens are guessed ahead: by layers of the model itself (mtp; dspark where its weights hold one), by a small
model made for it (eagle, eagle3, dflash, dspark), by any smaller model with the same vocabulary, or from the prompt."""


Loader = Literal["auto", "safetensors", "prefetch", "fastsafetensors", "instanttensor", "runai_streamer"]
"""How an engine reads a model's weights."""


class Draft(Frozen):
    """What guesses tokens ahead, which the model then verifies in one step: the same text, sooner. Where nothing is
    said: as the catalog knows for the model, or nothing. It belongs to one model: change both together."""

    method: DraftMethod | Literal["none"]
    """mtp: layers of the model's own. eagle, eagle3, dflash, dspark: a small model made for it (dspark: or part of its
    weights). draft_model: any smaller model with the same vocabulary. ngram: the prompt's own words. none: nothing,
    whatever the catalog says."""

    model: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """Its repository, where it has one of its own: pinned, placed, verified and counted like the model's weights."""

    revision: str | None = None
    """Branch, tag or commit of `model`. None: main as it was when it was first deployed."""

    tokens: Annotated[int, Field(ge=1)] = 3
    """Guessed at a time."""

    options: dict[str, Any] = {}
    """vLLM: more keys of its --speculative-config, e.g. draft_tensor_parallel_size."""

    @model_validator(mode="after")
    def _consistent(self) -> Draft:
        if self.method in ("eagle", "eagle3", "dflash", "draft_model") and not self.model:
            raise ValueError(f"{self.method} needs model: the repository of the model that guesses")
        if self.method in ("ngram", "none") and self.model:
            raise ValueError(f"{self.method} needs no model")
        return self


class Serving(Frozen):
    """How the model is served. None: from the catalog, else worked out, else the engine's own default."""

    host: Annotated[str, BeforeValidator(lambda value: str(ipaddress.IPv4Address(value)))] = "0.0.0.0"
    """Address the API binds to on the head."""

    port: Port | None = None
    """Of the API. None: the engine's usual one, 8000 for vLLM, 30000 for SGLang and 8355 for TensorRT-LLM."""

    executor: Literal["ray", "mp"] = "mp"
    """How vLLM reaches the other Sparks: by torch's own rendezvous (mp), or by Ray, which is added to images that have
    none."""

    launcher: Literal["swarm", "mpi"] = "swarm"
    """How TensorRT-LLM's ranks are run on several Sparks: as Docker Swarm services, or as plain containers."""

    tensor_parallel: Annotated[int, Field(ge=1)] | None = None
    """GPUs that share each layer. None: all Sparks, where the attention heads can be divided by them."""

    pipeline_parallel: Annotated[int, Field(ge=1)] | None = None
    """Groups of layers one behind the other. tensorParallel × pipelineParallel is the number of Sparks."""

    data_parallel: Annotated[int, Field(ge=1)] = 1
    """vLLM: whole copies of the model, among which requests are spread. tensorParallel × pipelineParallel ×
    dataParallel is the number of Sparks."""

    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompt and answer together."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a Spark's memory that the engine may take; CPU and GPU share the same memory. TensorRT-LLM: share
    for its KV cache of what is free after the weights."""

    expert_parallel: bool | None = None
    """Divide the experts of a mixture-of-experts model over the GPUs instead of each expert."""

    trust_remote_code: bool | None = None
    """Runs Python code from the model's repository."""

    reasoning_parser: str | None = None
    """The engine's name for how this model marks its reasoning."""

    tool_call_parser: str | None = None
    """The engine's name for how this model calls tools; turns tool choice on."""

    served_model_name: str | None = None
    """Name of the model in the API. None: its repository."""

    draft: Draft | None = None
    """What guesses tokens ahead. None: as the catalog knows for the model."""

    loader: Loader | None = None
    """vLLM, SGLang: how the weights are read. prefetch: into the page cache ahead of it. fastsafetensors,
    instanttensor, runai_streamer: those libraries', where the image has them. auto: the engine's own way. None: as the
    catalog knows for the model, else auto. docs/performance.md has what is known of each on a Spark."""

    extra_args: tuple[str, ...] = ()
    """Handed to the engine as they are, one word each."""

    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text] = {}
    """Environment of every rank, over what is worked out."""

    restarts: Annotated[int, Field(ge=0)] = 3
    """How often the server starts again after failures in a row, all ranks together, before it gives up."""

    stuck_after: Annotated[int, Field(ge=0)] = 300
    """vLLM and SGLang: seconds without an answer to a request of one token, nor any other work, after which an engine
    that says that it is well is started again (`restarts`). 0: it is not asked. TensorRT-LLM looks after itself."""

    check_fit: bool = True
    """Refuse a model that by estimate does not fit into the Sparks' memory, or that tensorParallel can't divide; false
    turns that into a warning."""

    check_answer: bool = True
    """Before it counts as ready, the model must know the capital of France (a pooling model: tell which sentences
    mean the same); false where yours can't."""

    compile_cache: bool = True
    """Keep what engines compile and tune at their start (torch.compile, Triton, FlashInfer, CUDA) in a Docker volume on
    each Spark, one for each image and model, so that the next start has it. It stays when the stack is destroyed, as
    long as the weights do (weights.keep); `./spark prune` takes those away that no stack uses."""

    startup_timeout: Annotated[int, Field(ge=10)] | None = None
    """Seconds from the server's start to its first answer. None: from the catalog, else half an hour, and more for
    weights of more than 60 GB per Spark."""

    @property
    def local_host(self) -> str:
        """Where the API answers on the head itself."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


class ImageSettings(Frozen):
    """The engine's container image."""

    name: ImageName | None = None
    """Container image. None: the engine's default, see components/plan/engines/."""

    source: Literal["pull", "copy", "build"] = "pull"
    """pull: on every Spark. copy: on the head alone; from there it is streamed over the fabric, each Spark to the
    next. build: made on the head from a Dockerfile, then streamed."""

    dockerfile: str | None = None
    """With `build`: a file on this machine, which must need no files beside it. None: vLLM from source,
    components/images/vllm.Dockerfile."""

    build_args: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text] = {}
    """With `build`: the Dockerfile's arguments, e.g. VLLM_REF. A new CACHEBUST_VLLM or CACHEBUST_DEPS fetches
    vLLM's source, or every dependency, again."""


class Containers(Frozen):
    """How containers are run."""

    privileged: bool = False
    """Give the containers every right on the Spark. Not needed for RDMA."""

    capabilities: tuple[Annotated[str, Field(pattern=r"^CAP_[A-Z_]+$")], ...] = ()
    """Of Linux's capabilities, further ones than the engines need, e.g. CAP_SYS_PTRACE for a profiler."""

    shm_size: Annotated[int, Field(ge=64)] | None = None
    """MiB of a /dev/shm of each container's own. None: the Spark's own /dev/shm, which holds half its memory, for plain
    containers; 16384 for Swarm services, which can't have that."""


class TrtllmSettings(Frozen):
    """TensorRT-LLM's own. None: from the catalog, else as written here."""

    max_num_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of all requests in one step, 8192: a budget of the scheduler, not the context's length."""

    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Requests in one step, 4."""

    backend: Literal["pytorch", "tensorrt", "_autodeploy"] | None = None
    """pytorch, unless a model needs another."""


class SwarmSettings(Frozen):
    """Docker Swarm, on which TensorRT-LLM's ranks run."""

    keep: bool = False
    """When the stack is destroyed, leave the Swarm and Docker's settings for it as they are."""


class RaySettings(Frozen):
    """Ray, where there are several Sparks."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "2.55.1"
    """Put into images that have no Ray. Images that have one keep theirs, equal on all Sparks."""

    port: Port = ports.RAY
    """Of Ray's control store on the head, which listens at every address (`./spark setup-guard` closes it)."""

    dashboard: bool = False
    """Ray's own, on the head: ten processes, 0.6 GB of the memory that the model needs, and seconds of Ray's start."""

    dashboard_port: Port = ports.RAY_DASHBOARD
    """Of the dashboard."""

    dashboard_host: str = "127.0.0.1"
    """Address it binds to. It and its jobs API run any code without asking: not for open networks."""

    @model_validator(mode="after")
    def _consistent(self) -> RaySettings:
        for key, alias in (("dashboard_port", "dashboardPort"), ("dashboard_host", "dashboardHost")):
            if key in self.model_fields_set and not self.dashboard:
                raise ValueError(f"{alias} is of Ray's dashboard, which is off unless `dashboard: true`")
        return self
