"""What engines compile and tune at their start, kept in one volume per image and model. Pure.

Where each of them keeps it, unless a variable says otherwise:

    vLLM                ~/.cache/vllm (torch.compile's graphs, FlashInfer's tuning)   vllm/envs.py, VLLM_CACHE_ROOT
    SGLang              ~/.cache/sglang (JIT, DeepGEMM, CuTe)            srt/environ.py, SGLANG_CACHE_DIR
    FlashInfer          ~/.cache/flashinfer                  flashinfer/jit/env.py, FLASHINFER_WORKSPACE_BASE
    TVM FFI             ~/.cache/tvm-ffi                     tvm_ffi/cpp/extension.py, TVM_FFI_CACHE_DIR
    Torch's extensions  ~/.cache/torch_extensions            torch/utils/cpp_extension.py, TORCH_EXTENSIONS_DIR
    and what ELSEWHERE lists

So the volume is at ~/.cache, and variables bring the others there. At its first use Docker fills a volume with what the
image has in that place: caches that an image brings there are not hidden. Each of them looks by content, version and
device whether what it finds is of use.
"""

from __future__ import annotations

from components.facts.hub import Model
from components.plan.values import Mount, digest
from components.settings import Settings

DIRECTORY = "/root/.cache"

NAME = "dgx-spark-compiled"
"""How the volumes' names begin: NAME.MODEL.COMMIT.IMAGE (scripts/shared/compiled.py)."""

ELSEWHERE = {
    # ~/.triton/cache: triton/knobs.py.
    "TRITON_CACHE_DIR": f"{DIRECTORY}/triton",
    # /tmp/torchinductor_USER: torch/_inductor/runtime/cache_dir_utils.py.
    "TORCHINDUCTOR_CACHE_DIR": f"{DIRECTORY}/torchinductor",
    # ~/.nv/ComputeCache: CUDA's programming guide, environment variables.
    "CUDA_CACHE_PATH": f"{DIRECTORY}/nv",
    # /tmp/USER/cutlass_python_cache: CuTe DSL's environment manager.
    "CUTE_DSL_CACHE_DIR": f"{DIRECTORY}/cute-dsl",
    # ~/.tilelang/cache: tilelang/env.py.
    "TILELANG_CACHE_DIR": f"{DIRECTORY}/tilelang",
    # ~/.deep_gemm: DeepGEMM's compiler; vLLM and SGLang set it to a folder below their own.
    "DG_JIT_CACHE_DIR": f"{DIRECTORY}/deep_gemm",
}

OF_TRTLLM = {
    # ~/.tensorrt_llm: TensorRT-LLM's own DeepGEMM, compiler.cuh.
    "TRTLLM_DG_CACHE_DIR": f"{DIRECTORY}/tensorrt_llm",
}
TUNING = {"TLLM_AUTOTUNER_CACHE_PATH": f"{DIRECTORY}/tensorrt_llm/autotuner.json"}
"""TensorRT-LLM's tuning is kept nowhere without it: _torch/pyexecutor/model_engine.py. On one Spark alone: of several,
those that find theirs would skip what the others do together."""


def environment(settings: Settings) -> dict[str, str]:
    """Of every container that an engine runs in."""
    if settings.engine != "trtllm":
        return ELSEWHERE
    return {**ELSEWHERE, **OF_TRTLLM, **(TUNING if len(settings.nodes) == 1 else {})}


def mount(model: Model | None) -> Mount:
    """A model's next revision starts clean, as another image does. None: for all models, on Ray, whose containers
    outlive a change of the model; what is compiled is found by its content."""
    if model is None:
        return Mount(f"{NAME}.ray.all", DIRECTORY, of_image=True)
    name = model.repo.strip("/").replace("/", "--")
    return Mount(f"{NAME}.{name}.{digest([model.commit, model.path])[:8]}", DIRECTORY, of_image=True)
