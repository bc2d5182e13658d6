"""Docker's settings for Swarm tasks with a GPU on RDMA, merged into what is there; runs as root.

stdin   JSON: uuid (of the GPU), kind (of the generic resource), shm_size (MiB), stack_limit (bytes), daemon, toolkit
        (paths of the two files), keep, record
apply   /etc/docker/daemon.json: the NVIDIA runtime as default, the GPU as generic resource, limits that RDMA
        needs, since a Swarm service can't ask for them; /etc/nvidia-container-runtime/config.toml: the variable
        by which Swarm tells the runtime the GPU. Docker is restarted if something changed, and containers that
        ran are started again.
remove  puts both files back as they were, byte for byte; where somebody has changed one since, takes out ours
        alone. Called by scripts/node.py when the Spark is handed back: until then another engine may run.
"""

import json
import os
import re
import subprocess
import sys
import time

from common import Docker, digest_of, read_record, remove_record, run, say, write_file, write_record

RUNTIME = {"path": "nvidia-container-runtime", "args": []}

RESTART_LIMIT = 60
"""Seconds for Docker to answer again; about 2 are usual."""


def text_of(path: str):
    """None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def variable(kind: str) -> str:
    """What Docker calls the variable that names a task's generic resource."""
    return f"DOCKER_RESOURCE_{kind.upper()}"


def wanted_daemon(given: dict, before: dict) -> dict:
    """daemon.json with our keys; those of others stay."""
    kind = given["kind"]
    others = [entry for entry in before.get("node-generic-resources", []) if not entry.startswith(f"{kind}=")]
    return {
        **before,
        "runtimes": {"nvidia": RUNTIME, **before.get("runtimes", {})},
        "default-runtime": "nvidia",
        "node-generic-resources": [*others, f"{kind}={given['uuid']}"],
        "default-ulimits": {
            **before.get("default-ulimits", {}),
            "memlock": {"Name": "memlock", "Hard": -1, "Soft": -1},
            "stack": {"Name": "stack", "Hard": given["stack_limit"], "Soft": given["stack_limit"]},
        },
        "default-shm-size": f"{given['shm_size']}M",
    }


def wanted_toolkit(given: dict, before: str) -> str:
    """config.toml with `swarm-resource` above the first table, where alone it counts."""
    line = f'swarm-resource = "{variable(given["kind"])}"'
    lines = before.splitlines(keepends=True)
    first_table = next((n for n, text in enumerate(lines) if text.lstrip().startswith("[")), len(lines))
    for number, text in enumerate(lines[:first_table]):
        if re.match(r"\s*#?\s*swarm-resource\s*=", text):
            lines[number] = f"{line}\n"
            return "".join(lines)
    unended = first_table > 0 and not lines[first_table - 1].endswith("\n")
    return "".join([*lines[:first_table], "\n" if unended else "", f"{line}\n", *lines[first_table:]])


def restored_daemon(now: dict, original: dict) -> dict:
    """`now` without what `wanted_daemon` put in, with what was there before."""
    result = dict(now)
    for key in ("default-runtime", "node-generic-resources", "default-ulimits", "default-shm-size", "runtimes"):
        result.pop(key, None)
        if key in original:
            result[key] = original[key]
    return result


def restored_toolkit(given: dict, now: str, original: str) -> str:
    ours = f'swarm-resource = "{variable(given["kind"])}"\n'
    former = next((text for text in original.splitlines(keepends=True) if "swarm-resource" in text), "")
    return now.replace(ours, former, 1)


def put(path: str, text) -> None:
    if text is None:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
    write_file(path, text, mode)


def restart() -> None:
    """Restart Docker, and whatever ran before and does not come back by itself."""
    ran = [container["Id"] for container in Docker().get("/containers/json")]
    say("Docker's settings have changed: restarting it")
    done = subprocess.run(["systemctl", "restart", "docker"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Docker does not start with the new settings: {done.stderr.strip()}")
    deadline = time.monotonic() + RESTART_LIMIT
    while True:
        try:
            running = {container["Id"] for container in Docker().get("/containers/json")}
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"Docker does not answer after its restart: {error}")
            time.sleep(0.5)
    for container in ran:
        if container not in running:
            subprocess.run(["docker", "start", container], capture_output=True)


def originals(given: dict) -> dict:
    """The files as they were before this stack first changed them: {path: text or None}."""
    recorded = read_record(given["record"]).get("originals")
    return recorded or {path: text_of(path) for path in (given["daemon"], given["toolkit"])}


def apply(given: dict) -> None:
    before = originals(given)
    daemon, toolkit = text_of(given["daemon"]), text_of(given["toolkit"])
    try:
        known = json.loads(daemon or "{}")
    except ValueError as error:
        sys.exit(f"{given['daemon']} is no JSON ({error}): correct it first")
    merged = wanted_daemon(given, known)
    texts = {
        given["daemon"]: daemon if merged == known else json.dumps(merged, indent=4) + "\n",
        given["toolkit"]: wanted_toolkit(given, toolkit or ""),
    }
    # First, so that an interrupted run can still be undone.
    write_record(given["record"], {}, originals=before, written=texts, keep=given["keep"], kind=given["kind"])
    changed = [path for path, text in texts.items() if text != text_of(path)]
    for path in changed:
        put(path, texts[path])
    if changed:
        restart()
    checks = {"digests": {path: digest_of(path) for path in texts}}
    write_record(given["record"], checks, originals=before, written=texts, keep=given["keep"], kind=given["kind"])


def remove(given: dict) -> None:
    known = read_record(given["record"])
    if not known or known["keep"]:
        return
    changed = False
    for path, original in known["originals"].items():
        now = text_of(path)
        if now is None or now == original:
            continue
        if now != known["written"][path]:
            say(f"{path} has been changed by somebody: taking out our settings alone")
            put(path, merged_back(path, now, original, known))
        else:
            put(path, original)
        changed = True
    remove_record({**given["record"], "generation": known["generation"]})
    if changed:
        restart()


def merged_back(path: str, now: str, original, known: dict) -> str:
    if path.endswith(".json"):
        return json.dumps(restored_daemon(json.loads(now), json.loads(original or "{}")), indent=4) + "\n"
    return restored_toolkit(known, now, original or "")


run(apply, remove)
