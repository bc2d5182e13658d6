"""`./spark status`, `logs` and `shell`: what runs, what it says, and a way in."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.programs import startups
from components.remote import parcel, ssh
from components.scripts.contracts import Gpu, Logs, Look, Startup
from ops.project import short
from ops.pulumi import CommandError
from ops.stack import Stack, terminal

console = Console(highlight=False, soft_wrap=True)

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")

DAY = 24 * 3600
"""Seconds for which logs are followed, at most."""


def status(cluster: Stack) -> dict[str, Any]:
    """Every Spark and the endpoint, as they are now. Raises CommandError naming Sparks that can't be asked."""
    stack = cluster.identity
    inputs = {name: Look(stack=stack, cache=cache) for name, cache in cluster.caches().items()}
    outputs = cluster.outputs
    sparks = cluster.ask("look.py", inputs)
    by_name = {node.name: node for node in cluster.settings.nodes}
    startup = sparks[cluster.settings.head.name]["startup"]
    starts = startups.Starts(cluster.where.folder, short(cluster.stack))
    known = starts.former(startup.get("configuration", "")) if startup else []
    return {
        "stack": stack,
        "engine": cluster.settings.engine,
        "sparks": sparks,
        "logs": {name: follow(ssh.by_hand(by_name[name], cluster.settings.ssh), sparks[name]) for name in sparks},
        "endpoint": {
            **endpoint(outputs.get("api_base"), outputs.get("model"), cluster.api_key()),
            "startup": startup,
            "former_starts": [one for one in known if one != startup],
        },
        "pages": pages(outputs),
    }


def pages(outputs: Mapping[str, Any]) -> dict[str, str]:
    """What a browser or another program opens, beside the endpoint."""
    found = {**(outputs.get("beside") or {}), "Ray's dashboard": outputs.get("dashboard")}
    return {name: where for name, where in found.items() if where}


def startup(cluster: Stack) -> Startup | None:
    """Of the server as it runs; the head alone is asked."""
    head = cluster.settings.head.name
    inputs = Look(stack=cluster.identity, cache=cluster.caches()[head])
    found: Startup | None = cluster.ask("look.py", {head: inputs})[head]["startup"]
    return found


def follow(login: str, about: dict[str, Any]) -> dict[str, str]:
    """Component → the command that follows its log on one Spark."""
    return {one["component"]: f"{login} docker logs -f {one['name']}" for one in about["containers"]}


def endpoint(base: str | None, model: str | None, key: str) -> dict[str, Any]:
    """state: `absent` (nothing was brought up), `unreachable`, `starting`, `other model` or `serving`."""
    if base is None:
        return {"state": "absent", "url": None, "model": None}
    found = {"url": base, "model": model}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        health = requests.get(base.removesuffix("/v1") + "/health", timeout=5)
        listed = requests.get(f"{base}/models", headers=headers, timeout=5)
        names = [one["id"] for one in listed.json()["data"]]
    except (requests.ConnectionError, requests.Timeout):
        return {**found, "state": "unreachable"}
    except (requests.RequestException, ValueError, LookupError):
        return {**found, "state": "starting"}
    if not health.ok:
        return {**found, "state": "starting"}
    return {**found, "state": "serving" if model in names else "other model"}


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['stack']} on {found['engine']}", title_justify="left")
    for heading in ("Spark", "GPU", "Memory free", "Disk free", "Held by", "Containers"):
        table.add_column(heading, overflow="fold")
    for node, about in found["sparks"].items():
        held = "this stack" if about["lease"] == found["stack"] else about["lease"] or "nobody"
        rows = "\n".join(f"{one['component']}: {one['status']}" for one in about["containers"]) or "none"
        table.add_row(
            node, _gpu(about["gpu"]), f"{about['memory']['free'] / 2**30:.0f} GiB",
            f"{about['disk']['free'] / 1e9:.0f} GB", held, rows,
        )  # fmt: skip
    console.print(table)
    end = found["endpoint"]
    console.print(f"Endpoint: {end['state']}" + (f", {end['model']} at {end['url']}" if end["url"] else ""))
    for name, where in found["pages"].items():
        console.print(f"{name[0].upper()}{name[1:]}: {where}")
    if startup := end["startup"]:
        console.print(f"Started {startup['started'][:16].replace('T', ' ')} UTC: {startups.in_words(startup)}")
        if usual := startups.usual(end["former_starts"]):
            console.print(f"Former starts of this configuration: first answer after {usual}")


def _gpu(gpu: Gpu) -> str:
    units = ((gpu["busy"], "%"), (gpu["temperature"], " °C"), (gpu["power"], " W"))
    shown = [f"{value:.0f}{unit}" for value, unit in units if value is not None]
    return ", ".join(shown) or "no answer"


def logs(
    cluster: Stack, names: Sequence[str], *, lines: int, follow: bool, since: str = "", as_json: bool = False
) -> None:
    """Every rank's log, each line with its Spark and component. `names`: of Sparks or of components; none: all."""
    known = {node.name for node in cluster.settings.nodes}
    nodes = cluster.nodes([name for name in names if name in known])
    components = [name for name in names if name not in known]
    inputs = Logs(stack=cluster.identity, components=components, lines=lines, follow=follow, since=since)
    command = parcel.command("logs.py", "apply", limit=DAY)
    merged = Merged([node.name for node in nodes], as_json=as_json)
    running = []
    for node in nodes:
        process = subprocess.Popen(
            [*ssh.argv(node, cluster.settings.ssh), command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # ssh has ended, and said why
            process.stdin.write(parcel.text("logs.py", inputs))
            process.stdin.close()
        thread = threading.Thread(target=merged.read, args=(node.name, process.stdout), daemon=True)
        thread.start()
        running.append((node.name, process, thread))
    try:
        for _, _, thread in running:
            thread.join()
        silent = [name for name, process, _ in running if process.wait()]
    finally:
        for _, process, _ in running:
            process.terminate()
    if silent:
        raise CommandError(f"{', '.join(silent)}: the logs are not to be had, or broke off (why is above)")


class Merged:
    """Logs of several Sparks in one, as their lines come."""

    def __init__(self, names: Sequence[str], *, as_json: bool) -> None:
        self._names, self._as_json = names, as_json
        self._lock = threading.Lock()

    def read(self, node: str, lines: Iterable[str]) -> None:
        """`lines`: as scripts/logs.py prints them, or what else came."""
        for line in lines:
            try:
                component, text = json.loads(line)
            except (ValueError, TypeError):
                component, text = "", line.rstrip("\n")
            with self._lock:
                self._show(node, component, text)

    def _show(self, node: str, component: str, text: str) -> None:
        if self._as_json:
            print(json.dumps({"spark": node, "component": component, "line": text}), flush=True)
            return
        colour = COLOURS[self._names.index(node) % len(COLOURS)]
        width = max(map(len, self._names))
        console.print(Text.assemble((f"{node:{width}} {component}", colour), " | ", Text.from_ansi(text)))


def shell(cluster: Stack, name: str | None, command: Sequence[str]) -> int:
    """In the server's container on a Spark (by default the head), or that of Ray where the server has none there;
    with the rank's own environment. Returns the exit code."""
    node = cluster.nodes([name] if name else [])[0]
    inputs = {node.name: Look(stack=cluster.identity, cache=cluster.caches()[node.name])}
    found = cluster.ask("look.py", inputs)[node.name]["containers"]
    running = [one for one in found if one["state"] == "running"]
    if not running:
        raise CommandError(f"{cluster.stack} has no running container on {node.name}: `./spark status`")
    chosen = next((one for one in running if one["component"] == "server"), running[0])
    inside = command or ["sh", "-c", "command -v bash >/dev/null && exec bash || exec sh"]
    tty = sys.stdin.isatty()
    login = ssh.argv(node, cluster.settings.ssh)
    words = ["docker", "exec", "--interactive", *(["--tty"] if tty else []), chosen["name"]]
    return terminal([*login[:1], *(["-t"] if tty else []), *login[1:], ssh.quote([*words, *inside])])
