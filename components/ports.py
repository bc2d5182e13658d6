"""The one table of TCP ports, and where each one comes from."""

VLLM = 8000
"""OpenAI API. Source: `vllm serve --help`, --port."""

VLLM_RENDEZVOUS = 29501
"""torch's rendezvous of vLLM without Ray, on the head's fabric address. Source: eugr/spark-vllm-docker."""

SGLANG = 30000
"""Source: `sglang.launch_server --help`, --port."""

SGLANG_RENDEZVOUS = 50000
"""torch's rendezvous, on the head's fabric address. Source: NVIDIA's and the community's Spark recipes."""

TRTLLM = 8355
"""Source: NVIDIA's TensorRT-LLM recipes for DGX Spark."""

MPI_SSH = 2233
"""sshd of the MPI ranks, on each Spark's fabric address. Source: NVIDIA's TensorRT-LLM recipe for two Sparks."""

SWARM = 2377
"""Swarm's manager. Source: Docker's documentation, Swarm mode."""

RAY = 6379
"""Ray's control store (GCS) on the head. Source: `ray start --help`, --port."""

RAY_DASHBOARD = 8265
"""Source: `ray start --help`, --dashboard-port."""

PERFTEST = 18515
"""The first of a few: one per RDMA device, and one more. Source: perftest's own default."""

RANKS = 29600
"""Where rank 0 leads the other ranks (inside/together.py), on the head's fabric address. Arbitrary."""

NODE_EXPORTER = 9100
"""Source: node_exporter's own default; and so are the next ones their programs'."""

GPU_EXPORTER = 9835
PROMETHEUS = 9090
GRAFANA = 3000
GATEWAY = 4000
CHAT = 8080

SSH = 22
