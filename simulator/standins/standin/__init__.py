"""What the engine stand-ins share: ranks, weights, NCCL's choices and the HTTP API."""
