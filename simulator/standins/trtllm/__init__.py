"""Stands in for TensorRT-LLM inside the simulated images: the command line, MPI launch and HTTP API of 1.2
around arithmetic that is not done. MPI is the real one (Open MPI and mpi4py)."""

__version__ = "1.2.1"
