"""Docker's settings for Swarm tasks with a GPU on RDMA, merged into what is there; runs as root.

stdin   JSON: uuid (of the GPU), kind (of the generic resource), shm_size (MiB), stack_limit (bytes), daemon, toolkit
        (paths of the two files), keep, record
apply   /etc/docker/daemon.json: the NVIDIA runtime, registered where it is not, as default, the GPU as generic
        resource, limits that RDMA needs, since a Swarm service can't ask for them; the toolkit's config.toml: the
        variable by which Swarm tells the runtime the GPU. Docker is restarted if something changed, and containers
        that ran are started again. Where Docker does not come up with them, both files go back, and it with them.
remove  puts both files back as they were, byte for byte; where somebody has changed one since, takes out ours
        alone. Called by scripts/node.py when the Spark is handed back: until then another engine may run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

from shared.docker import Docker
from shared.files import digest_of, write_file
from shared.job import run, say
from shared.records import read_record, remove_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import SwarmHost

PROGRAM = "nvidia-container-runtime"
RUNTIME = {"path": PROGRAM, "args": []}
"""As `nvidia-ctk runtime configure` writes it."""

OURS = ("runtimes", "default-runtime", "node-generic-resources", "default-ulimits", "default-shm-size")
"""Keys of daemon.json in which there is something of ours."""

UNFINISHED = ""
"""Spec of the record while Docker has not answered with these settings."""

START_LIMIT = 100
"""Seconds for systemd to restart Docker: containers get 10 to end in, and a daemon with many starts in 20."""

ANSWER_LIMIT = 30
"""Seconds for Docker to answer after that; about 2 are usual."""

CAUSE = re.compile(r"unable to |failed to |incompatible|level=(error|fatal)")
"""What dockerd says last when it does not start."""


def text_of(path: str) -> str | None:
    """None where there is no such file. Line ends and bytes that are no UTF-8 come back as they are (write_file)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def settings(path: str, text: str | None) -> dict[str, Any]:
    """daemon.json's content. An empty file is one without settings, to dockerd too."""
    try:
        known = json.loads((text or "").strip() or "{}")
    except ValueError as error:
        sys.exit(f"{path} is no JSON ({error}): correct it first")
    if not isinstance(known, dict):
        sys.exit(f"{path} is no JSON object: correct it first")
    return known


def variable(kind: str) -> str:
    """What Docker calls the variable that names a task's generic resource."""
    return f"DOCKER_RESOURCE_{kind.upper()}"


def wanted_daemon(inputs: SwarmHost, before: dict, registered: bool) -> dict:
    """daemon.json with our keys; those of others stay.

    registered  Docker has the NVIDIA runtime: from this file, or by a flag, which must not stand here again
    """
    kind = inputs["kind"]
    others = [entry for entry in before.get("node-generic-resources") or [] if not entry.startswith(f"{kind}=")]
    return {
        **before,
        **({} if registered else {"runtimes": {**(before.get("runtimes") or {}), "nvidia": RUNTIME}}),
        "default-runtime": "nvidia",
        "node-generic-resources": [*others, f"{kind}={inputs['uuid']}"],
        "default-ulimits": {
            **(before.get("default-ulimits") or {}),
            "memlock": {"Name": "memlock", "Hard": -1, "Soft": -1},
            "stack": {"Name": "stack", "Hard": inputs["stack_limit"], "Soft": inputs["stack_limit"]},
        },
        "default-shm-size": f"{inputs['shm_size']}M",
    }


def wanted_toolkit(inputs: SwarmHost, before: str) -> str:
    """config.toml with `swarm-resource` above the first table, where alone it counts."""
    line = f'swarm-resource = "{variable(inputs["kind"])}"'
    lines = before.splitlines(keepends=True)
    first_table = next((n for n, text in enumerate(lines) if text.lstrip().startswith("[")), len(lines))
    for number, text in enumerate(lines[:first_table]):
        if re.match(r"\s*#?\s*swarm-resource\s*=", text):
            lines[number] = f"{line}\n"
            return "".join(lines)
    unended = first_table > 0 and not lines[first_table - 1].endswith("\n")
    return "".join([*lines[:first_table], "\n" if unended else "", f"{line}\n", *lines[first_table:]])


def restored_daemon(now: dict, written: dict, original: dict) -> dict:
    """`now` with what `wanted_daemon` put in as it was before; what somebody has set since stays."""
    result = dict(now)
    for key in OURS:
        if key not in now:
            continue
        value = restored(now[key], written.get(key), original.get(key))
        if value is None and key not in original:
            del result[key]
        else:
            result[key] = value
    return result


def restored(now: Any, written: Any, original: Any) -> Any:
    """One key's value; of a table or a list what is ours alone goes."""
    if now == written:
        return original
    if isinstance(now, dict):
        former = original or {}
        ours = {name for name, value in (written or {}).items() if now.get(name) == value != former.get(name)}
        return {name: value for name, value in {**now, **former}.items() if name not in ours or name in former}
    if isinstance(now, list):
        return [entry for entry in now if entry not in (written or []) or entry in (original or [])]
    return now


def restored_toolkit(kind: str, now: str, original: str) -> str:
    ours = f'swarm-resource = "{variable(kind)}"\n'
    former = next((text for text in original.splitlines(keepends=True) if "swarm-resource" in text), "")
    return now.replace(ours, former, 1)


def put(path: str, text: str | None) -> None:
    if text is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
    write_file(path, text, mode)


def settle(texts: dict, nvidia: bool) -> None:
    """Write the files and restart Docker. Where it does not come up with them, all is put back, and the script ends.

    nvidia  whether its default runtime is NVIDIA's then
    """
    before = {path: text_of(path) for path in texts}
    ran = [container["Id"] for container in Docker().get("/containers/json")]
    say("Docker's settings have changed: restarting it")
    for path, text in texts.items():
        put(path, text)
    wrong = restart(nvidia)
    if wrong:
        for path, text in before.items():
            put(path, text)
        still = restart(False)
    start_again(ran)
    if wrong:
        put_back = f"Docker does not run with our settings, so {' and '.join(texts)} are as they were: {wrong}"
        sys.exit(f"{put_back}; nor does it with those: {still}" if still else put_back)


def restart(nvidia: bool) -> str:
    """'' when Docker answers again, else why it does not."""
    # A unit that has failed some times is not started any more. Source: systemd.unit(5), StartLimitBurst.
    subprocess.run(["systemctl", "reset-failed", "docker.service", "docker.socket"], capture_output=True)
    try:
        argv = ["systemctl", "restart", "docker"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=START_LIMIT)
    except subprocess.TimeoutExpired:
        return f"it was not up within {START_LIMIT} seconds"
    if done.returncode:
        return cause() or done.stderr.strip()
    deadline = time.monotonic() + ANSWER_LIMIT
    while True:
        try:
            default = Docker().get("/info")["DefaultRuntime"]
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return f"it does not answer: {error}"
            time.sleep(0.5)
    return "it did not take them: does its unit name another --config-file?" if nvidia and default != "nvidia" else ""


def cause() -> str:
    """Why dockerd did not start, in its own words; '' where there is no journal of it."""
    argv = ["journalctl", "--unit=docker", "--output=cat", "--no-pager", "--lines=40"]
    try:
        lines = subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if CAUSE.search(line)), "")


def start_again(ran: list) -> None:
    """Whatever ran before a restart and did not come back by itself."""
    try:
        running = {container["Id"] for container in Docker().get("/containers/json")}
    except OSError:
        return
    for container in ran:
        if container not in running:
            subprocess.run(["docker", "start", container], capture_output=True)


def check(info: dict, inputs: SwarmHost) -> None:
    """Ends the script where Docker can't be given these settings."""
    if info.get("LiveRestoreEnabled"):
        sys.exit(
            'Docker\'s live-restore is on, with which there is no Swarm: set "live-restore": false in '
            f"{inputs['daemon']} and `sudo systemctl restart docker`, or take serving.launcher mpi"
        )
    if "nvidia" not in info["Runtimes"] and not shutil.which(PROGRAM):
        sys.exit(f"there is no {PROGRAM}, which brings the GPU in: sudo apt install nvidia-container-toolkit")


def apply(inputs: SwarmHost) -> None:
    info = Docker().get("/info")
    check(info, inputs)
    former = read_record(inputs["record"])
    now = {path: text_of(path) for path in (inputs["daemon"], inputs["toolkit"])}
    known = settings(inputs["daemon"], now[inputs["daemon"]])
    merged = wanted_daemon(inputs, known, "nvidia" in info["Runtimes"])
    texts = {
        inputs["daemon"]: now[inputs["daemon"]] if merged == known else json.dumps(merged, indent=4) + "\n",
        inputs["toolkit"]: wanted_toolkit(inputs, now[inputs["toolkit"]] or ""),
    }
    about = {
        "originals": former.get("originals") or now,
        "written": texts,
        "keep": inputs["keep"],
        "kind": inputs["kind"],
    }
    unfinished = former.get("spec") == UNFINISHED
    if texts != now or unfinished or info["DefaultRuntime"] != "nvidia":
        # First, so that an interrupted run can be undone; of no spec, so that it is not taken for a finished one.
        write_record({**inputs["record"], "spec": UNFINISHED}, {}, **about)
        settle(texts, nvidia=True)
    write_record(inputs["record"], {"digests": {path: digest_of(path) for path in texts}}, **about)


def remove(inputs: SwarmHost) -> None:
    known = read_record(inputs["record"])
    if not known or known["keep"]:
        return
    texts = {}
    for path, original in known["originals"].items():
        now = text_of(path)
        if now is None or now == original:
            continue
        texts[path] = original
        if now != known["written"][path]:
            say(f"{path} has been changed by somebody: taking out our settings alone")
            texts[path] = merged_back(path, now, original, known)
    if texts:
        settle(texts, nvidia=False)
    remove_record({**inputs["record"], "generation": known["generation"]})


def merged_back(path: str, now: str, original: str | None, known: dict[str, Any]) -> str:
    if path.endswith(".json"):
        texts = (now, known["written"][path], original)
        return json.dumps(restored_daemon(*(settings(path, text) for text in texts)), indent=4) + "\n"
    return restored_toolkit(known["kind"], now, original or "")


run(apply, remove)
