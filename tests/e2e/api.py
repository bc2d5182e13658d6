"""What vLLM's API refuses, and in which words: asked of the stand-in here, of a genuine one in tests/real."""

from __future__ import annotations

from typing import Any

import requests

from tests.e2e.conftest import Stack

CHAT = "chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def refuses(stack: Stack, key: str) -> None:
    """A wrong key, a model that is not served, more tokens than the model can hold."""
    outputs = stack.outputs()
    base, model = outputs["api_base"], outputs["model"]

    def asks(path: str, bearer: str = key, **body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        method = "POST" if body else "GET"
        found = requests.request(method, f"{base}/{path}", json=body or None, headers=headers, timeout=120)
        return found.status_code, found.json()

    assert asks(CHAT, "another", model=model, messages=HELLO) == (401, {"error": "Unauthorized"})
    assert asks("models", "another") == (401, {"error": "Unauthorized"})

    code, body = asks(CHAT, model="nobody/nothing", messages=HELLO)
    assert (code, body["error"]["type"], body["error"]["code"]) == (404, "NotFoundError", 404)
    _, listed = asks("models")
    names = ", ".join(served["id"] for served in listed["data"])
    assert body["error"]["message"] == f"The model `nobody/nothing` does not exist. Valid aliases: {names}."

    longest = listed["data"][0]["max_model_len"]
    code, body = asks(CHAT, model=model, messages=HELLO, max_tokens=10 * longest)
    assert (code, body["error"]["type"]) == (400, "BadRequestError")
    said = f"max_tokens={10 * longest} cannot be greater than max_model_len={longest}."
    assert body["error"]["message"].startswith(said)

    assert asks("no/such/path", model=model) == (404, {"detail": "Not Found"})
