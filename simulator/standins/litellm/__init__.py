"""LiteLLM's proxy, as far as this project configures it: one model, keys by custom authentication."""
