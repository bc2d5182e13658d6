"""Stands in for vLLM inside the simulated images: the real command line, Ray placement and HTTP API of
vLLM 0.31 around arithmetic that is not done. It fails where and how the real one fails."""

__version__ = "0.31.0"
