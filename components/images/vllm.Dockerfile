# vLLM from source for GB10 (compute capability 12.1), with Ray.
# `image.source: build` builds it on the head and streams it to the other Sparks; it needs no files beside it.
#
# Everything is pinned. To move on: pulumi config set --path image.buildArgs.VLLM_REF v0.20.0
# To fetch again what a pin does not hold still (branches, apt, PyPI's newest): set a new value of
#   CACHEBUST_VLLM   vLLM's source alone
#   CACHEBUST_DEPS   every dependency, Debian packages included

ARG CUDA_IMAGE=nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

# What both building and running need.
FROM ${CUDA_IMAGE} AS base
ARG CACHEBUST_DEPS=1
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas
# hadolint ignore=DL3008
RUN echo "dependencies: ${CACHEBUST_DEPS}" \
    && apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates curl git python3-dev python3-pip \
        iproute2 libibverbs1 libnccl2 rdma-core libxcb1 \
    && rm -rf /var/lib/apt/lists/*

# torch and the kernels that come as wheels.
FROM base AS dependencies
# The versions that vLLM 0.19.0 asks for in its own package.
ARG TORCH_VERSION=2.10.0
ARG TORCHVISION_VERSION=0.25.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG FLASHINFER_VERSION=0.6.6
ARG RAY_VERSION=2.55.1
RUN python3 -m pip install --no-cache-dir --index-url "${TORCH_INDEX}" \
        "torch==${TORCH_VERSION}" "torchaudio==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"
RUN python3 -m pip install --no-cache-dir --no-deps \
        "flashinfer-python==${FLASHINFER_VERSION}" "flashinfer-cubin==${FLASHINFER_VERSION}" \
    && python3 -m pip install --no-cache-dir "ray[default]==${RAY_VERSION}"

# The build itself; its tools don't reach the result.
FROM dependencies AS build
ARG TORCH_CUDA_ARCH_LIST=12.1a
ARG BUILD_JOBS=16
ARG VLLM_REPO=https://github.com/vllm-project/vllm.git
ARG VLLM_REF=v0.19.0
ARG CACHEBUST_VLLM=1
ENV TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST} \
    MAX_JOBS=${BUILD_JOBS} \
    CCACHE_DIR=/ccache
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ccache cmake libibverbs-dev libnccl-dev ninja-build \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN echo "source: ${CACHEBUST_VLLM}" \
    && git clone --filter=blob:none "${VLLM_REPO}" vllm \
    && git -C vllm checkout --recurse-submodules "${VLLM_REF}"
WORKDIR /src/vllm
RUN --mount=type=cache,target=/ccache \
    python3 use_existing_torch.py \
    && python3 -m pip install --no-cache-dir -r requirements/build.txt \
    && python3 -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

FROM dependencies AS serve
ARG TORCH_CUDA_ARCH_LIST=12.1a
# Kernels that are compiled when they are first used are for this GPU too.
ENV TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST}
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m pip install --no-cache-dir /wheels/*.whl
WORKDIR /workspace
CMD ["vllm", "--help"]
