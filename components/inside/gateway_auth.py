"""Who may use the gateway: keys.json beside this file, name → key. A key opens the model's API and nothing else.

Runs inside LiteLLM's container. Source: its documentation, Custom Auth. LiteLLM asks nothing more of who is let through
here. With 1.74.3 `user_config` in a body was seen to send the engine's key to an address of the asker's choice, and
/health/test_connection a request of the head's. Some thirty routes ask nobody for a key: they showed how much was asked
for in each minute, the tasks that run, and pages that load scripts from elsewhere.
"""

import hmac
import json
import os

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.proxy_server import app
from litellm.types.utils import all_litellm_params

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys.json")) as stream:
    KEYS = json.load(stream)

API = {"models", "chat/completions", "completions", "embeddings", "responses", "messages", "rerank"}
"""What an engine serves, below /v1 or not."""

OPENAI = {"metadata", "id"}
"""Names of LiteLLM's own that OpenAI's API has too."""

STEERING = {
    *all_litellm_params, "user_config", "context_window_fallbacks", "content_policy_fallbacks", "base_url",
} - OPENAI  # fmt: skip
"""What a body tells LiteLLM and not the engine."""


def _is_api(path: str) -> bool:
    named = path.removeprefix("/v1").removeprefix("/")
    return named in API or named.startswith("models/")


# LiteLLM imports this file once it has all its routes, and before it answers.
app.router.routes[:] = [route for route in app.router.routes if _is_api(route.path)]


async def authenticate(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """Raises for LiteLLM to answer 401. `api_key`: None without one."""
    given = (api_key or "").removeprefix("Bearer ").encode()
    # Every key is compared, whichever it is.
    name = [name for name, key in KEYS.items() if hmac.compare_digest(key.encode(), given)]
    if not name:
        raise Exception("this key opens nothing here")
    if not _is_api(request.url.path):
        raise Exception("a key of the gateway opens the model's API alone")
    if steering := sorted(STEERING & await _named(request)):
        raise Exception(f"not for a request to say: {', '.join(steering)}")
    return UserAPIKeyAuth(api_key=api_key, user_id=name[0])


async def _named(request: Request) -> set[str]:
    """The names in a request's body, which stays to be read."""
    if request.method == "GET":
        return set()
    body = json.loads(await request.body() or "{}")
    return set(body) if isinstance(body, dict) else set()
