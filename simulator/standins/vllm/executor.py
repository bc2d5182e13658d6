"""Places one worker per GPU: in this process, or over the nodes of a Ray cluster."""

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory

from standin import gpu, ranks, worker
from standin.knobs import knobs

CARRIED = ("VLLM_", "LMCACHE_", "NCCL_", "UCX_", "HF_", "HUGGING_FACE_")
"""vLLM copies the driver's variables of these families to every Ray worker (vllm/ray/ray_env.py) ..."""
NEVER_CARRIED = {"VLLM_HOST_IP", "VLLM_HOST_PORT", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"}


def carried() -> dict:
    """... less those that the user lists in ray_non_carry_over_env_vars.json."""
    root = os.environ.get("VLLM_CONFIG_ROOT", os.path.expanduser("~/.config/vllm"))
    path = os.path.join(root, "ray_non_carry_over_env_vars.json")
    listed = set()
    if os.path.exists(path):
        with open(path) as stream:
            listed = set(json.load(stream))
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(CARRIED) and name not in NEVER_CARRIED and name not in listed
    }


class Local:
    """One rank in this process."""

    def __init__(self, model: str, arguments, log) -> None:
        worker.load(0, 1, model, knobs(), arguments.gpu_memory_utilization, log, family="vllm")

    def step(self) -> None:
        gpu.work()


class Torch:
    """world ranks on as many nodes, joined by torch's rendezvous (`--nnodes`, `--node-rank`, `--master-addr`)."""

    def __init__(self, model: str, arguments, log) -> None:
        world, rank = arguments.nnodes, arguments.node_rank
        if world != arguments.tensor_parallel_size * arguments.pipeline_parallel_size:
            raise ValueError(f"World size does not match {world} nodes with one GPU each.")
        self._join(rank, world, arguments.master_addr, arguments.master_port, model, arguments, log)

    def _join(self, rank, world, address, port, model, arguments, log) -> None:
        if rank and not arguments.headless:
            raise ValueError("only node rank 0 serves HTTP: the others need --headless")

        def load() -> None:
            worker.load(rank, world, model, knobs(), arguments.gpu_memory_utilization, log, family="vllm")

        if rank:
            ranks.follow(rank, address, port, load, log)
        head = ranks.Head(world, address, port, log)
        load()
        head.ask(b"l")
        self.step = head.step


class Copies(Torch):
    """Whole copies of the model, one per node (`--data-parallel-size`), joined by rank 0's RPC port."""

    def __init__(self, model: str, arguments, log) -> None:
        world, rank = arguments.data_parallel_size, arguments.data_parallel_start_rank or 0
        if arguments.tensor_parallel_size * arguments.pipeline_parallel_size > 1:
            raise ValueError("this stand-in has one GPU per copy and node without Ray")
        if arguments.data_parallel_size_local != 1 or not arguments.data_parallel_address:
            raise ValueError("--data-parallel-size-local 1 and --data-parallel-address are needed with one GPU a node")
        address, port = arguments.data_parallel_address, arguments.data_parallel_rpc_port
        self._join(rank, world, address, port, model, arguments, log)


class Broadcast:
    """How the driver tells the ranks of its own node what to do: by shared memory and a socket's file, whatever
    container they are in. Source: vLLM 0.32, shm_broadcast.py; ray_executor_v2.py, the default since 0.23."""

    def __init__(self, readers: int) -> None:
        self.readers, self.memory = readers, SharedMemory(create=True, size=4096)
        self.path = os.path.join(os.environ.get("VLLM_RPC_BASE_PATH", tempfile.gettempdir()), str(uuid.uuid4()))
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen()

    def wait_until_ready(self) -> None:
        """However long it takes: nothing else tells that a rank never comes."""
        for _ in range(self.readers):
            self.socket.accept()


def subscribe(memory: str, path: str) -> None:
    """Raises FileNotFoundError without that memory; waits for the file, as ZeroMQ does."""
    with open(f"/dev/shm/{memory}", "rb"):
        pass
    with socket.socket(socket.AF_UNIX) as reader:
        while reader.connect_ex(path):
            time.sleep(0.1)


def worker_class(ray, world: int):
    """One rank as Ray's actor. Made here, since Ray sends such a class whole."""

    class RayWorkerProc:
        def __init__(self, environment: dict) -> None:
            os.environ.update(environment)
            self.rank = -1

        def address(self) -> str:
            return ray.util.get_node_ip_address()

        def node(self) -> str:
            return ray.get_runtime_context().get_node_id()

        def run(self, memory: str, path: str) -> None:
            subscribe(memory, path)

        def load(self, rank: int, model: str, utilization: float) -> None:
            self.rank = rank

            def say(text: str) -> None:
                print(text, flush=True)

            known = knobs()
            left = replace(known, free_gib=known.free_gib - known.ray_gib)
            worker.load(rank, world, model, left, utilization, say, family="vllm")

        def alive(self) -> int:
            return self.rank

        def step(self) -> int:
            gpu.work()
            return self.rank

    return RayWorkerProc


class RayCluster:
    """world = TP x PP x DP ranks as Ray actors with one GPU each."""

    def __init__(self, model: str, arguments, log) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("Ray is not installed. Please install Ray to use the ray executor backend.") from error
        self.ray = ray
        world = arguments.tensor_parallel_size * arguments.pipeline_parallel_size * arguments.data_parallel_size
        if arguments.data_parallel_size > 1 and arguments.data_parallel_backend != "ray":
            raise ValueError("--data-parallel-backend=ray is needed to place copies with Ray")
        log(f"Connecting to existing Ray cluster at address: {os.environ.get('RAY_ADDRESS')}...")
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=True)
        self._await_gpus(world, log)
        group = ray.util.placement_group([{"GPU": 1}] * world, strategy="PACK")
        ray.get(group.ready())
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        remote = ray.remote(num_gpus=1, num_cpus=0)(worker_class(ray, world))
        placed = [
            remote.options(scheduling_strategy=strategy(group, placement_group_bundle_index=bundle)).remote(carried())
            for bundle in range(world)
        ]
        addresses = ray.get([w.address.remote() for w in placed])
        driver = os.environ.get("VLLM_HOST_IP")
        if driver not in addresses:
            log(f"WARNING the driver's VLLM_HOST_IP is none of the workers' addresses {addresses}")
        # The driver's node first, then by address: so the real one numbers its ranks.
        order = sorted(zip(addresses, placed, strict=True), key=lambda pair: (pair[0] != driver, pair[0]))
        self.workers = [worker_ for _, worker_ in order]
        share = arguments.gpu_memory_utilization
        ray.get([w.load.remote(rank, model, share) for rank, w in enumerate(self.workers)])
        self._tell_by_memory()
        threading.Thread(target=self._watch, args=(log,), daemon=True).start()

    def _tell_by_memory(self) -> None:
        own = self.ray.get_runtime_context().get_node_id()
        nodes = self.ray.get([w.node.remote() for w in self.workers])
        near = [w for w, node in zip(self.workers, nodes, strict=True) if node == own]
        broadcast = Broadcast(len(near))
        running = [w.run.remote(broadcast.memory.name, broadcast.path) for w in near]
        broadcast.wait_until_ready()
        self.ray.get(running)

    def _await_gpus(self, world: int, log) -> None:
        began = time.monotonic()
        while self.ray.cluster_resources().get("GPU", 0) < world:
            waited = int(time.monotonic() - began)
            if waited % 5 == 0:
                log(
                    f"Waiting for creating a placement group of specs for {waited} seconds. "
                    f"specs={[{'GPU': 1}] * world}. Check `ray status` and `ray list nodes` to see if you have "
                    "enough resources, and make sure the IP addresses used by ray cluster are the same as VLLM_HOST_IP."
                )
            time.sleep(1)

    def _watch(self, log) -> None:
        """A dead remote rank ends the server within about a second, with exit code 0 (measured, vLLM 0.32)."""
        while True:
            try:
                self.ray.get([w.alive.remote() for w in self.workers], timeout=60)
            except self.ray.exceptions.RayError as error:
                log(f"ERROR Worker died: {type(error).__name__}. Shutting down the server.")
                os._exit(0)
            time.sleep(0.5)

    def step(self) -> None:
        self.ray.get([w.step.remote() for w in self.workers])
