"""A genuine vLLM in the simulated Sparks, on their processors: `./spark demo --real` and tests/real. For the latter a
genuine gateway and chat page too."""
