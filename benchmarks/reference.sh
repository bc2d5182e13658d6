#!/usr/bin/env bash
# What people run today, step after step over SSH: the launch scripts of sglang-dgx-spark and of vllm-dgx-spark (their later
# edition: start_cluster.sh and start_worker_vllm.sh of spring 2026, with SKIP_MODEL_DOWNLOAD), for one pair whose image and
# weights are in place. Only what they do between the command and the answer is here, less their `docker pull` on each Spark
# (the simulated ones reach no registry) and their look at ibdev2netdev.
#
# usage  reference.sh sglang|vllm start|stop MODEL
# env    HEAD_SSH, WORKER_SSH   commands that run a command there
#        HEAD, WORKER           fabric addresses
#        INTERFACE, HCAS        of the fabric, the same on both
#        CACHE, IMAGE           directory of Hugging Face, image
#        REPO                   of the model
#        RAY_VERSION            that they install
set -euo pipefail

engine=$1 action=$2 model=${3:-}
head() { $HEAD_SSH "$@"; }
worker() { $WORKER_SSH "$@"; }

run() { # NAME ADDRESS FLAGS… -- COMMAND…
    local name=$1 address=$2
    shift 2
    echo docker run -d --name "$name" --gpus all --network host --ulimit memlock=-1 --ulimit stack=67108864 \
        --device /dev/infiniband -v "$CACHE:/root/.cache/huggingface" -e HF_HOME=/root/.cache/huggingface -e HF_HUB_OFFLINE=1 \
        -e TIKTOKEN_ENCODINGS_BASE=/root/.cache/huggingface/hub/tiktoken-encodings \
        -e NCCL_DEBUG=INFO -e NCCL_IB_DISABLE=0 -e "NCCL_IB_HCA=$HCAS" -e "NCCL_SOCKET_IFNAME=$INTERFACE" \
        -e "GLOO_SOCKET_IFNAME=$INTERFACE" -e "VLLM_HOST_IP=$address" -e "SGLANG_HOST_IP=$address" "$@"
}

# Each second, as their scripts do.
until_healthy() { # URL
    until head curl -sf -o /dev/null "$1"; do sleep 1; done
}

sglang_rank() { # RANK
    echo python3 -m sglang.launch_server --model-path "$model" --tp-size 2 --nnodes 2 --node-rank "$1" \
        --dist-init-addr "$HEAD:50000" --host 0.0.0.0 --port 30000 --mem-fraction-static 0.80 --disable-cuda-graph
}

start_sglang() {
    worker true
    worker "docker rm -f sglang-worker >/dev/null 2>&1 || true"
    worker "$(run sglang-worker "$WORKER" --restart no --ipc host --entrypoint '""' "$IMAGE") $(sglang_rank 1)" >/dev/null
    sleep 5
    head "docker rm -f sglang-head >/dev/null 2>&1 || true"
    head "$(run sglang-head "$HEAD" --restart no --ipc host --entrypoint '""' "$IMAGE") $(sglang_rank 0)" >/dev/null
    head "docker ps --format '{{.Names}}'" | grep -q sglang-head
    until_healthy http://127.0.0.1:30000/health
}

stop_sglang() {
    worker "docker stop sglang-worker >/dev/null; docker rm -f sglang-worker >/dev/null" || true
    head "docker stop sglang-head >/dev/null; docker rm -f sglang-head >/dev/null" || true
}

sleeping() { # NAME ADDRESS
    run "$1" "$2" --restart unless-stopped --shm-size 1g --entrypoint '""' "$IMAGE" sleep infinity
}

nodes() {
    head docker exec ray-head ray status --address=127.0.0.1:6379 2>/dev/null | grep -c '^ 1 node_' || true
}

# What they look at in a new container; NVIDIA's images have no Ray, and a container that is gone takes what was installed along.
# Of their looks those at torch and vllm are left out: the stand-ins can't be as slow to import.
prepared() { # SPARK CONTAINER
    local inside="docker exec -i $2"
    "$1" "$inside sh -c 'ldconfig -p 2>/dev/null | grep -q libibverbs || true'"
    "$1" "$inside python3 -c 'import ray' 2>/dev/null || $inside env PIP_BREAK_SYSTEM_PACKAGES=1 \
        python3 -m pip install --quiet --root-user-action=ignore 'ray[default]==$RAY_VERSION'"
    "$1" "$inside python3 -c 'import ray; print(ray.__version__)'" >/dev/null
    "$1" "$inside python3 -" >/dev/null <<<"
from huggingface_hub import snapshot_download
kept = dict(revision='${model##*/}', ignore_patterns=['original/*', 'metal/*'], local_files_only=True)
print(snapshot_download('$REPO', **kept))"
}

vllm_worker() {
    worker "timeout 3 bash -c '</dev/tcp/$HEAD/6379'"
    worker "docker rm -f ray-worker >/dev/null 2>&1 || true"
    worker "$(sleeping ray-worker "$WORKER")" >/dev/null
    prepared worker ray-worker
    worker "docker exec ray-worker ray stop --force >/dev/null 2>&1 || true"
    worker docker exec ray-worker ray start "--address=$HEAD:6379" "--node-ip-address=$WORKER" --num-gpus 1 >/dev/null
}

start_vllm() {
    head "docker rm -f ray-head >/dev/null 2>&1 || true"
    head "$(sleeping ray-head "$HEAD")" >/dev/null
    prepared head ray-head
    worker true
    head "docker exec ray-head ray stop --force >/dev/null 2>&1 || true"
    head docker exec ray-head ray start --head "--node-ip-address=$HEAD" --port 6379 --dashboard-host 0.0.0.0 \
        --num-gpus 1 >/dev/null
    until [ "$(nodes)" -ge 1 ]; do sleep 1; done
    vllm_worker &
    sleep 2
    until [ "$(nodes)" -ge 2 ]; do sleep 1; done
    wait $!
    head "docker exec -d -e RAY_ADDRESS=127.0.0.1:6379 -e PYTHONUNBUFFERED=1 ray-head sh -c \
        'vllm serve $model --distributed-executor-backend ray --host 0.0.0.0 --port 8000 --tensor-parallel-size 2 \
        --max-model-len 8192 --gpu-memory-utilization 0.70 > /tmp/vllm.log 2>&1'"
    sleep 1
    until_healthy http://127.0.0.1:8000/health
    [ "$(nodes)" -ge 2 ]
    head curl -sf -o /dev/null http://127.0.0.1:8000/v1/models
}

stop_vllm() {
    worker "docker stop ray-worker >/dev/null; docker rm ray-worker >/dev/null" || true
    head "docker stop ray-head >/dev/null; docker rm ray-head >/dev/null" || true
}

"${action}_${engine}"
