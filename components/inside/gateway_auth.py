"""Who may use the gateway: keys.json beside this file, name → key.

Runs inside LiteLLM's container. Source: its documentation, Custom Auth.
"""

import hmac
import json
import os

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys.json")) as stream:
    KEYS = json.load(stream)


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    for name, key in KEYS.items():
        if hmac.compare_digest(key.encode(), api_key.removeprefix("Bearer ").encode()):
            return UserAPIKeyAuth(api_key=api_key, user_id=name)
    raise Exception("this key opens nothing here")
