"""Grafana, as far as its provisioning goes: reads the files as the real one does, stops at what that would not take,
and answers /api/health, /api/search and /api/dashboards/uid/UID for whoever may look."""

import glob
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

UNITS = {"percentunit", "celsius", "watt", "bytes", "bps", "short", "s"}


def documents(kind: str) -> list:
    folder = os.path.join(os.environ["GF_PATHS_PROVISIONING"], kind)
    found = []
    for path in sorted([*glob.glob(f"{folder}/*.yaml"), *glob.glob(f"{folder}/*.yml")]):
        with open(path) as stream:
            found.append(yaml.safe_load(stream))
        if found[-1]["apiVersion"] != 1:
            sys.exit(f"{path}: unknown apiVersion")
    return found


def dashboards() -> dict:
    sources = {source["uid"]: source for document in documents("datasources") for source in document["datasources"]}
    found = {}
    for document in documents("dashboards"):
        for provider in document["providers"]:
            for path in sorted(glob.glob(os.path.join(provider["options"]["path"], "*.json"))):
                with open(path) as stream:
                    board = json.load(stream)
                for panel in board["panels"]:
                    if panel["datasource"]["uid"] not in sources:
                        sys.exit(f"{path}: datasource {panel['datasource']['uid']} was not found")
                    if panel["fieldConfig"]["defaults"]["unit"] not in UNITS:
                        sys.exit(f"{path}: unknown unit {panel['fieldConfig']['defaults']['unit']}")
                    if panel["type"] != "timeseries" or not panel["targets"]:
                        sys.exit(f"{path}: panel {panel['title']}: plugin not found, or no query")
                found[board["uid"]] = board
    return found


class Handler(BaseHTTPRequestHandler):
    boards: dict

    def do_GET(self) -> None:
        if self.path == "/api/health":
            self._json({"database": "ok"})
        elif os.environ.get("GF_AUTH_ANONYMOUS_ENABLED") != "true":
            self._json({"message": "Unauthorized"}, 401)
        elif self.path == "/api/search":
            self._json([{"uid": uid, "title": board["title"]} for uid, board in self.boards.items()])
        elif self.path.rsplit("/", 1)[-1] in self.boards:
            self._json({"dashboard": self.boards[self.path.rsplit("/", 1)[-1]]})
        else:
            self._json({"message": "Not found"}, 404)

    def _json(self, payload: object, status: int = 200) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    Handler.boards = dashboards()
    home = os.environ.get("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")
    if home and not os.path.exists(home):
        sys.exit(f"{home} does not exist")
    address = os.environ.get("GF_SERVER_HTTP_ADDR", ""), int(os.environ.get("GF_SERVER_HTTP_PORT", "3000"))
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
