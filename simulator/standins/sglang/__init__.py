"""Stands in for SGLang inside the simulated images: the command line, rendezvous and HTTP API of SGLang 0.5.23
around arithmetic that is not done."""

__version__ = "0.5.23"
