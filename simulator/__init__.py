"""Simulated DGX Sparks on one Linux machine: real SSH, Docker, Ray and weights, no GPU.

Each Spark is a network namespace with its own sshd, dockerd and (fake) NVIDIA tools, joined to the
others by a management network and by a fabric with the ConnectX-7's interface names. What is stood
in for, and how strictly, is written beside each stand-in in `standins/` and `bin/`.
"""
