"""The routes of LiteLLM's proxy that are of interest here."""

from types import SimpleNamespace

OPEN = ("/", "/openapi.json", "/ui", "/login", "/health/liveliness", "/memory-usage-in-mem-cache-items")
"""They ask nobody for a key. Seen of 1.74.3."""

GUARDED = (
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/health/test_connection", "/config/update",
    "/key/generate",
)  # fmt: skip

app = SimpleNamespace(router=SimpleNamespace(routes=[SimpleNamespace(path=path) for path in (*OPEN, *GUARDED)]))
