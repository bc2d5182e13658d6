"""`litellm --config FILE`: passes on what an accepted key asks for, and asks the upstream with its own."""

import argparse
import asyncio
import importlib.util
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from fastapi import URL, Request
from litellm.proxy.proxy_server import OPEN, app


def value(text: str) -> str:
    return os.environ[text.removeprefix("os.environ/")] if text.startswith("os.environ/") else text


def authentication(config: dict, folder: str):
    """Source: LiteLLM's documentation, Custom Auth: FILE.FUNCTION, the file beside the configuration."""
    module, function = config["general_settings"]["custom_auth"].split(".")
    spec = importlib.util.spec_from_file_location(module, os.path.join(folder, f"{module}.py"))
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, function)


class Handler(BaseHTTPRequestHandler):
    models: dict
    authenticate: Callable[..., Coroutine[Any, Any, object]]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, content: bytes) -> None:
        path = self.path.split("?")[0]
        if path not in {route.path for route in app.router.routes}:
            self._json({"detail": "Not Found"}, 404)
            return
        if path in OPEN:
            self._json({})
            return
        given = self.headers.get("Authorization")
        key = None if given is None else given.removeprefix("Bearer ")
        try:
            asyncio.run(type(self).authenticate(Request(self.command, URL(path), content), key))
        except Exception as error:
            self._json({"error": {"message": f"Authentication Error, {error}", "code": "401"}}, 401)
            return
        # Whom the authentication lets through may do all this.
        if self.path == "/health/test_connection":
            self._json({"status": "success"})
            return
        if self.path == "/v1/models":
            listed = [{"id": name, "object": "model", "owned_by": "openai"} for name in self.models]
            self._json({"data": listed, "object": "list"})
            return
        order = json.loads(content)
        models = self.models
        if "user_config" in order:
            models = {one["model_name"]: one["litellm_params"] for one in order.pop("user_config")["model_list"]}
        if order["model"] not in models:
            self._json(
                {"error": {"message": f"Invalid model name passed in model={order['model']}", "code": "400"}}, 400
            )
            return
        about = models[order["model"]]
        provider, _, name = about["model"].partition("/")
        if provider != "hosted_vllm":
            self._json({"error": {"message": f"LLM Provider NOT provided: {about['model']}"}}, 400)
            return
        request = urllib.request.Request(
            about["api_base"] + self.path.removeprefix("/v1"),
            json.dumps({**order, "model": name}).encode(),
            {"Authorization": f"Bearer {value(about['api_key'])}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._json(json.load(answer))
        except urllib.error.HTTPError as error:
            self._json({"error": {"message": error.read().decode()}}, error.code)

    def _json(self, payload: object, status: int = 200) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    words = argparse.ArgumentParser(prog="litellm", allow_abbrev=False)
    words.add_argument("--config", required=True)
    words.add_argument("--host", default="0.0.0.0")
    words.add_argument("--port", type=int, default=4000)
    given = words.parse_args()
    with open(given.config) as stream:
        config = yaml.safe_load(stream)
    unknown = set(config) - {"model_list", "general_settings", "litellm_settings", "router_settings"}
    if unknown:
        raise SystemExit(f"litellm: unknown settings {unknown}")
    Handler.models = {one["model_name"]: one["litellm_params"] for one in config["model_list"]}
    Handler.authenticate = staticmethod(authentication(config, os.path.dirname(given.config)))
    ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
