"""Probe all Sparks at once: one SSH round trip each, facts as JSON on stdout.

Run as a program, `python -m components.remote.ask`, because Pulumi's synchronous invokes run one after the
other: one of them probes all Sparks in parallel. Standard library only.

stdin   JSON: [{"name": node, "argv": [ssh …, command], "stdin": text}]
stdout  JSON: {node: {"facts": …} or {"error": {"kind", "detail"}}}
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LIMIT = 60
"""Seconds for one Spark. A probe takes well under one."""

KINDS = (
    ("Host key verification failed", "host key"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host key"),
    ("Permission denied", "login"),
    ("Could not resolve hostname", "name"),
    ("Connection refused", "unreachable"),
    ("timed out", "unreachable"),
    ("No route to host", "unreachable"),
    ("Network is unreachable", "unreachable"),
    ("no such identity", "login"),
    ("python3: command not found", "python"),
    ("python3: No such file", "python"),
)
"""Words of OpenSSH's or the remote shell's stderr → what kind of failure it is; the first hit counts."""


def classify(stderr: str) -> str:
    return next((kind for words, kind in KINDS if words in stderr), "other")


def ask(target: dict[str, Any], limit: int = LIMIT) -> dict[str, Any]:
    try:
        done = subprocess.run(
            target["argv"], input=target["stdin"], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": {"kind": "unreachable", "detail": f"no answer within {limit} s"}}
    except FileNotFoundError:
        return {"error": {"kind": "no ssh", "detail": "no program `ssh` on this machine"}}
    if done.returncode:
        detail = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": {"kind": classify(done.stderr), "detail": detail[-1]}}
    return {"facts": json.loads(done.stdout)}


def main() -> None:
    targets = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        results = dict(zip([target["name"] for target in targets], pool.map(ask, targets), strict=True))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
