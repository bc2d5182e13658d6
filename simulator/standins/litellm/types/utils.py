"""What a custom authentication reads of LiteLLM."""

all_litellm_params = [
    "metadata",
    "api_base",
    "api_key",
    "custom_llm_provider",
    "fallbacks",
    "model_list",
]
"""Of some 120, those that the tests try."""
