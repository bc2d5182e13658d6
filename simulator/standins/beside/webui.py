"""Open WebUI, as far as its configuration goes: lists the models of the OpenAI endpoint that it is given."""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        base, key = os.environ["OPENAI_API_BASE_URL"], os.environ.get("OPENAI_API_KEY", "")
        request = urllib.request.Request(f"{base}/models", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            models = [model["id"] for model in json.load(answer)["data"]]
        body = json.dumps({"name": os.environ.get("WEBUI_NAME"), "models": models}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    os.makedirs("/app/backend/data", exist_ok=True)
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
