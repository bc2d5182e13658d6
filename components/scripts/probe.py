"""Read-only facts of one Spark, as JSON on stdout. Runs on the Spark at every preview and up.

stdin   JSON: stack, cache (directory for weights, may begin with ~), repos (the models'), images (names to look up),
        sudo (whether it is needed: a refusal goes into the Spark's log), look (null, or the model that must be here
        already: {"repo", "revision"} or {"path"}), draft (null, or {"repo", "revision"} of what guesses for it)
stdout  JSON, read by components/facts/spark.py, which says what each fact means
exit    0, also where something is missing: absence is a fact, and the plan decides what it means
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
import urllib.parse
from operator import itemgetter

from shared.docker import Docker, labels_of, name_of
from shared.files import digest_of, existing, read
from shared.images import image_parts
from shared.job import job
from shared.links import PERFTEST
from shared.models import model_folder
from shared.records import holds
from shared.state import LEASE, record_path, stack_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Facts

HOOKS = ("nvidia-container-runtime-hook", "nvidia-cdi-hook")
"""Programs of NVIDIA's toolkit by which dockerd hands a GPU to a container."""


def output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


GPU = re.compile(r"^(?P<name>.+), (?P<uuid>GPU-[^,\s]+), (?P<driver>[^,\s]+)$")

WORDS = 300
"""Characters of nvidia-smi's own words, at most."""


def gpus() -> tuple:
    """(GPUs, what nvidia-smi said where it named none). It says what is wrong on stdout, with any exit code."""
    argv = ["nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=20)
    except FileNotFoundError:
        return [], "there is no program nvidia-smi"
    except subprocess.TimeoutExpired:
        return [], "it does not answer within 20 s"
    rows = [match.groupdict() for line in done.stdout.splitlines() if (match := GPU.match(line.strip()))]
    return rows, "" if rows else " ".join((done.stdout + done.stderr).split())[:WORDS]


def cdi_specs() -> list:
    """Files that describe NVIDIA's GPUs to Docker, and what they name of the host that is gone.

    Read line by line, in YAML and JSON alike: no parser for YAML need be here.
    """
    specs = []
    for folder in ("/etc/cdi", "/var/run/cdi"):
        for path in sorted(glob.glob(f"{folder}/*.yaml") + glob.glob(f"{folder}/*.json")):
            text = read(path)
            if "nvidia.com/gpu" in text:
                named = sorted(set(re.findall(r"\"?hostPath\"?: *\"?([^\s\",}]+)", text)))
                specs.append({"path": path, "missing": [name for name in named if not os.path.exists(name)]})
    return specs


def rdma_devices() -> list:
    """Every RDMA device in sysfs: what ibdev2netdev prints, and the GIDs that it does not."""
    devices = []
    for base in sorted(glob.glob("/sys/class/infiniband/*")):
        port = f"{base}/ports/1"
        gids = []
        for path in glob.glob(f"{port}/gids/*"):
            index = os.path.basename(path)
            kind, gid = read(f"{port}/gid_attrs/types/{index}"), read(path)
            if kind and gid.strip("0:"):
                gids.append({"index": int(index), "gid": gid, "type": kind})
        netdevs = sorted(os.listdir(f"{base}/device/net")) if os.path.isdir(f"{base}/device/net") else []
        netdevs = netdevs or [read(path) for path in sorted(glob.glob(f"{port}/gid_attrs/ndevs/*")) if read(path)]
        devices.append(
            {
                "name": os.path.basename(base),
                "netdev": netdevs[0] if netdevs else None,
                "state": read(f"{port}/state"),
                "rate": read(f"{port}/rate"),
                "gids": sorted(gids, key=itemgetter("index")),
            }
        )
    return devices


def addresses() -> list:
    found = json.loads(output("ip", "-j", "-4", "addr") or "[]")
    links = {link["ifname"]: link for link in json.loads(output("ip", "-j", "-d", "link") or "[]")}
    # Older versions of ip print {} for what -4 leaves out.
    v4 = {link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]] for link in found if link}
    about = {name: link.get("linkinfo", {}) for name, link in links.items()}
    return [
        {
            "name": name,
            "mtu": link["mtu"],
            "addresses": v4.get(name, []),
            "master": link.get("master") if about[name].get("info_slave_kind") == "bond" else None,
            "parent": link.get("link") if about[name].get("info_kind") == "vlan" else None,
        }
        for name, link in sorted(links.items())
    ]


def docker(stack: str, names: list) -> dict:
    try:
        daemon = Docker()
        info = daemon.get("/info")
        images = daemon.get("/images/json") or []
        containers = daemon.get("/containers/json?all=1") or []
        kept = things(daemon, stack, manages=info.get("Swarm", {}).get("ControlAvailable", False))
    except PermissionError:
        return {"problem": "permission"}
    except (FileNotFoundError, ConnectionError):
        return {"problem": "absent"}
    except OSError as error:
        return {"problem": str(error)}
    return {
        "version": info["ServerVersion"],
        "runtimes": sorted(info.get("Runtimes") or {}),
        "swarm": info.get("Swarm", {}).get("NodeID", ""),
        "root": info.get("DockerRootDir", ""),
        "image_ids": [image["Id"] for image in images],
        "contents": {name: about for name in names if (about := content(daemon, name))},
        "gpu_devices": sorted(
            device["ID"] for device in info.get("DiscoveredDevices") or [] if device["ID"].startswith("nvidia.com/gpu=")
        ),
        "live_restore": info.get("LiveRestoreEnabled", False),
        "things": kept,
        "containers": [
            {
                "id": container["Id"],
                "name": name_of(container),
                "running": container["State"] == "running",
                "service": "com.docker.swarm.service.id" in labels_of(container),
                "labels": {k: v for k, v in labels_of(container).items() if k.startswith("dgx-spark.")},
            }
            for container in containers
        ],
    }


def things(daemon: Docker, stack: str, *, manages: bool) -> list:
    """What else carries the stack's label. `manages`: this Spark manages a Swarm, and knows its services and files."""
    ours = urllib.parse.quote(json.dumps({"label": [f"dgx-spark.stack={stack}"]}))
    volumes = (daemon.get(f"/volumes?filters={ours}") or {}).get("Volumes") or []
    found = [("volume", one["Name"], one["Name"]) for one in volumes]
    for kind in ("service", "config", "secret") if manages else ():
        found += [(kind, one["ID"], one["Spec"]["Name"]) for one in daemon.get(f"/{kind}s?filters={ours}") or []]
    return [{"kind": kind, "id": id_, "name": name} for kind, id_, name in sorted(found)]


def content(daemon: Docker, name: str) -> dict | None:
    """An image's ids, and what it is made of (shared/images.py); None where it is not here."""
    path = urllib.parse.quote(name, safe="/:@")
    about = daemon.get(f"/images/{path}/json")
    if about is None:
        return None
    return {"id": about["Id"], "digests": sorted(about.get("RepoDigests") or []), **image_parts(about)}


LISTENS = {"tcp": "0A", "udp": "07"}
"""State of a socket that waits for whoever comes; with UDP any that is not connected. Source: Linux, tcp_states.h."""


def listening(protocol: str) -> list:
    ports = set()
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        for line in read(table).splitlines()[1:]:
            _, here, there, state, *_ = line.split()
            if state == LISTENS[protocol] and there.endswith(":0000"):
                ports.add(int(here.rsplit(":", 1)[1], 16))
    return sorted(ports)


def written(cache: str, repos: list) -> list:
    """Whatever a download of these models writes in the cache: directories to put something in, files to open."""
    hub = os.path.join(cache, "hub")
    paths = [cache, hub, f"{hub}/.locks", f"{hub}/blobs"]
    for repo in repos:
        folder = model_folder(cache, repo)
        if not repo.startswith("/"):
            locks = os.path.join(hub, ".locks", os.path.basename(folder))
            paths += [below for top in (folder, locks) for below, _, _ in os.walk(top)]
            paths += [*glob.glob(f"{folder}/refs/*"), *glob.glob(f"{locks}/*")]
    return [path for path in paths if os.path.exists(path)] or [existing(cache)]


def closed(cache: str, repos: list) -> list:
    """The topmost of it that the login user can't write."""
    found: list[dict[str, Any]] = []
    for path in written(cache, repos):
        need = os.W_OK | os.X_OK if os.path.isdir(path) else os.W_OK
        if os.access(path, need) or any(path.startswith(f"{one['path']}/") for one in found):
            continue
        owner = os.stat(path).st_uid
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        found.append({"path": path, "owner": name, "read_only": read_only, "missing": missing(cache)})
    return found


def missing(cache: str) -> str:
    return "" if os.path.exists(cache) else cache


def snapshot(cache: str, repo: str, revision: str | None) -> str:
    """Directory of a commit in huggingface_hub's cache; without a revision, that of main or the only one."""
    folder = model_folder(cache, repo)
    there = glob.glob(f"{folder}/snapshots/*")
    commit = read(f"{folder}/refs/{revision or 'main'}") or revision
    if commit is None and len(there) == 1:
        return there[0]
    return f"{folder}/snapshots/{commit}"


def checksum(path: str) -> str | None:
    """The sha256 by which a cache names a large file: that of its first link, since blobs may be links by another
    hash (shared/models.py)."""
    parent, blob = os.path.split(os.readlink(path)) if os.path.islink(path) else ("", "")
    return blob if len(blob) == 64 and os.path.basename(parent) == "blobs" else None


def table(text: str) -> dict | None:
    """A JSON object; None where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def present(wanted: dict, cache: str) -> dict | None:
    """A model that is here: its files, by whatever checksums the cache keeps; None where there is none."""
    base = wanted.get("path") or snapshot(cache, wanted["repo"], wanted["revision"])
    config = read(os.path.join(base, "config.json"))
    if not config:
        return None
    files, stamps = [], []
    for folder, below, names in os.walk(base):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            about = os.stat(path)
            files.append({"path": os.path.relpath(path, base), "size": about.st_size, "sha256": checksum(path)})
            stamps.append([files[-1]["path"], about.st_size, about.st_mtime_ns])
    listing = hashlib.sha256(json.dumps(sorted(stamps)).encode()).hexdigest()[:40]
    commit = listing if "path" in wanted else os.path.basename(base)
    return {"commit": commit, "files": sorted(files, key=lambda file: file["path"]), "config": table(config)}


def blobs(folder: str) -> dict:
    """Name of each of a model's blobs → bytes of it on the disk, also of one that is not whole yet: a download keeps
    that as NAME.….incomplete. Of several parts of one the largest counts."""
    found: dict[str, int] = {}
    for path in glob.glob(f"{folder}/blobs/*"):
        # A download renames its files, and a link may lead nowhere.
        with contextlib.suppress(OSError):
            name = os.path.basename(path).split(".")[0]
            found[name] = max(found.get(name, 0), os.stat(path).st_blocks * 512)
    return found


def records(stack: str, image_ids: set, swarm: str) -> dict:
    found = {}
    for path in glob.glob(f"{stack_directory(stack)}/*.json"):
        record = json.loads(read(path) or "{}")
        if "checks" in record:
            record["intact"] = holds(record.pop("checks"), image_ids, swarm)
            found[os.path.basename(path)[: -len(".json")]] = record
    return found


def last_change(folder: str) -> str:
    """When something was last put into this folder or taken out, in ns; of the nearest one above where it is not there.

    A record that somebody deletes is gone; this tells its absence from that of a record that never was.
    """
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return str(os.stat(folder).st_mtime_ns)


def main() -> None:
    _, wanted = job()
    stack = wanted["stack"]
    cache = os.path.expanduser(wanted["cache"])
    engine = docker(stack, wanted["images"])
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in read("/proc/meminfo").splitlines()}
    found, words = gpus()
    weights = json.loads(read(record_path(stack, "weights")) or "{}").get("model") or {}
    facts: Facts = {
        "machine_id": read("/etc/machine-id"),
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        "hostname": platform.node(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "cma_total": memory.get("CmaTotal", 0),
        "cma_free": memory.get("CmaFree", 0),
        "perftest": all(map(shutil.which, PERFTEST)),
        "home": os.path.expanduser("~"),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "memory": memory.get("MemTotal", 0),
        "available": memory.get("MemAvailable", 0),
        "cache": {
            "path": cache,
            "held": {repo: blobs(model_folder(cache, repo)) for repo in wanted["repos"]},
            "free": shutil.disk_usage(existing(cache)).free,
            "closed": closed(cache, wanted["repos"]),
        },
        "present": wanted["look"] and present(wanted["look"], cache),
        "draft": wanted["draft"] and present(wanted["draft"], cache),
        "encodings": {name: found for name in wanted["encodings"] if (found := digest_of(os.path.join(cache, name)))},
        "gpus": found,
        "gpu_words": words,
        "gpu_tools": [tool for tool in HOOKS if shutil.which(tool)],
        "cdi": cdi_specs(),
        "docker": engine,
        "links": addresses(),
        "ibdev2netdev": output("ibdev2netdev"),
        "rdma": rdma_devices(),
        "infiniband_device": os.path.isdir("/dev/infiniband"),
        "listening": listening("tcp"),
        "listening_udp": listening("udp"),
        "host_key": read("/etc/ssh/ssh_host_ed25519_key.pub"),
        "ssh_port": int(os.environ["SSH_CONNECTION"].split()[3]),
        "sudo": wanted["sudo"] and succeeds("sudo", "-n", "true"),
        "lease": json.loads(read(LEASE) or "null"),
        "records": records(stack, set(engine.get("image_ids", [])), engine.get("swarm", "")),
        "records_changed": last_change(stack_directory(stack)),
        "model_config": table(read(os.path.join(weights.get("path", "/nowhere"), "config.json"))),
    }
    facts["docker"].pop("image_ids", None)
    print(json.dumps(facts))


main()
