"""A genuine vLLM in the simulated Sparks, on their processors: `./spark demo --real` and tests/real."""
