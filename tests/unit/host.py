"""A Spark's outside in a directory: /sys, /proc, /etc, programs and Docker's socket, for scripts that only look."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from components.remote import parcel
from tests.unit.home import Home

FUTURE = "from __future__ import annotations\n"
OUTSIDE = re.compile(r"(?<=\")/(?=(?:sys|proc|etc|dev|run|var/run)/)")


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Docker's API over a socket: canned answers by path, 404 for all else."""

    daemon_threads = True

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.answers = outer = dict(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = self.path if self.path in outer else self.path.split("?")[0]
                body = json.dumps(outer.get(key, {"message": "no such thing"})).encode()
                self.send_response(200 if key in outer else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "socket"

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Host(Home):
    """Scripts see this directory where they name the Spark's own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "home")
        self.path.mkdir()
        self.root, self.programs = path / "root", path / "programs"
        self.programs.mkdir()
        self.path_of_others = os.environ["PATH"]
        self.daemon: Daemon | None = None
        self.before = ""
        """Python that runs before a script."""

        self.put("proc/meminfo", "MemTotal: 125516800 kB\nMemAvailable: 120000000 kB\n")
        self.put("proc/uptime", "100.00 200.00\n")

    def put(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def program(self, name: str, text: str) -> None:
        """`text`: of a shell script."""
        (self.programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.programs / name).chmod(0o755)

    def prints(self, name: str, output: str, code: int = 0) -> None:
        self.program(name, f"cat <<'END'\n{output.rstrip()}\nEND\nexit {code}")

    def docker(self, answers: Mapping[str, Any]) -> None:
        usual = {"/info": {"ServerVersion": "28.0.0"}, "/images/json": [], "/containers/json": []}
        self.daemon = Daemon(self.root / "var/run/docker.sock", {**usual, **answers})

    def close(self) -> None:
        if self.daemon:
            self.daemon.shutdown()
            self.daemon.server_close()

    def shadow(self, *names: str) -> None:
        """As if these programs of this machine were not there."""
        inside = self.root.parent / "without"
        inside.mkdir(exist_ok=True)
        for folder in reversed(os.environ["PATH"].split(":")):
            for program in Path(folder).glob("*"):
                link = inside / program.name
                link.unlink(missing_ok=True)
                if program.name not in names:
                    link.symlink_to(program)
        self.path_of_others = str(inside)

    def environment(self) -> dict[str, str]:
        known = super().environment()
        return {**known, "PATH": f"{self.programs}:{self.path_of_others}"}

    def text(self, script: str, given: Mapping[str, Any]) -> str:
        packed = parcel.pack(script, given)
        texts = {name: OUTSIDE.sub(f"{self.root}/", text) for name, text in packed["scripts"].items()}
        # Nothing may stand before an import from the future.
        first, *rest = texts["shared/__init__.py"].partition(FUTURE)
        packed["scripts"] = {**texts, "shared/__init__.py": first + FUTURE + self.before + rest[-1]}
        return json.dumps(packed)

    def json(self, script: str, **given: Any) -> Any:
        """What a script prints; fails with its words where it does."""
        done: subprocess.CompletedProcess[str] = self.run(script, "apply", **given)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def infiniband(
        self, device: str, netdev: str, gids: Mapping[int, tuple[str, str]], state: str = "4: ACTIVE"
    ) -> None:
        """`gids`: index → (GID as sysfs prints it, type)."""
        base = f"sys/class/infiniband/{device}"
        (self.root / base / "device/net" / netdev).mkdir(parents=True, exist_ok=True)
        self.put(f"{base}/ports/1/state", f"{state}\n")
        self.put(f"{base}/ports/1/rate", "200 Gb/sec (4X HDR)\n")
        for index, (gid, kind) in gids.items():
            self.put(f"{base}/ports/1/gids/{index}", f"{gid}\n")
            self.put(f"{base}/ports/1/gid_attrs/types/{index}", f"{kind}\n")
            self.put(f"{base}/ports/1/gid_attrs/ndevs/{index}", f"{netdev}\n")
