"""The one table of TCP ports, and where each one comes from."""

VLLM = 8000
"""OpenAI API. Source: `vllm serve --help`, --port."""

RAY = 6379
"""Ray's control store (GCS) on the head. Source: `ray start --help`, --port."""

RAY_DASHBOARD = 8265
"""Source: `ray start --help`, --dashboard-port."""

SSH = 22
