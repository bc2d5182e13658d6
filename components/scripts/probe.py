"""Read-only facts of one Spark, as JSON on stdout. Runs on the Spark at every preview and up.

stdin   JSON: stack, cache (directory for weights, may begin with ~), repos (the models'), images (names to look up),
        sudo (whether it is needed: a refusal goes into the Spark's log), look (null, or the model that must be here
        already: {"repo", "revision"} or {"path"})
stdout  JSON, read by components/facts/spark.py, which says what each fact means
exit    0, also where something is missing: absence is a fact, and the plan decides what it means
"""

import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess

from common import LEASE, Docker, held, holds, is_named, job, model_folder, read, record_path, stack_directory


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
        devices.append(
            {
                "name": os.path.basename(base),
                "netdev": netdevs[0] if netdevs else None,
                "state": read(f"{port}/state"),
                "rate": read(f"{port}/rate"),
                "gids": sorted(gids, key=lambda gid: gid["index"]),
            }
        )
    return devices


def addresses() -> list:
    found = json.loads(output("ip", "-j", "-4", "addr") or "[]")
    mtus = {link["ifname"]: link["mtu"] for link in json.loads(output("ip", "-j", "link") or "[]")}
    v4 = {link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]] for link in found}
    return [{"name": name, "mtu": mtu, "addresses": v4.get(name, [])} for name, mtu in sorted(mtus.items())]


def docker(stack: str, names: list) -> dict:
    try:
        daemon = Docker()
        info = daemon.get("/info")
        images = daemon.get("/images/json") or []
        containers = daemon.get("/containers/json?all=1") or []
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
        "images": {name: image["Id"] for image in images for name in names if is_named(image, name)},
        "containers": [
            {
                "id": container["Id"],
                "name": container["Names"][0].lstrip("/"),
                "running": container["State"] == "running",
                "labels": {k: v for k, v in container["Labels"].items() if k.startswith("dgx-spark.")},
            }
            for container in containers
        ],
    }


def listening() -> list:
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return sorted(ports)


def space(path: str) -> dict:
    """Bytes free where `path` is or would be made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return {"free": shutil.disk_usage(path).free, "writable": os.access(path, os.W_OK)}


def snapshot(cache: str, repo: str, revision: str | None) -> str:
    """Directory of a commit in huggingface_hub's cache; without a revision, that of main or the only one."""
    folder = model_folder(cache, repo)
    there = glob.glob(f"{folder}/snapshots/*")
    commit = read(f"{folder}/refs/{revision or 'main'}") or revision
    if commit is None and len(there) == 1:
        return there[0]
    return f"{folder}/snapshots/{commit}"


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
            # The cache names large files by their sha256.
            blob = os.path.basename(os.path.realpath(path))
            known = blob if len(blob) == 64 and os.path.islink(path) else None
            files.append({"path": os.path.relpath(path, base), "size": about.st_size, "sha256": known})
            stamps.append([files[-1]["path"], about.st_size, about.st_mtime_ns])
    listing = hashlib.sha256(json.dumps(sorted(stamps)).encode()).hexdigest()[:40]
    commit = listing if "path" in wanted else os.path.basename(base)
    return {"commit": commit, "files": sorted(files, key=lambda file: file["path"]), "config": json.loads(config)}


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
    gpus = output("nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader").splitlines()
    weights = json.loads(read(record_path(stack, "weights")) or "{}").get("model") or {}
    facts = {
        "machine_id": read("/etc/machine-id"),
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        "hostname": platform.node(),
        "architecture": platform.machine(),
        "home": os.path.expanduser("~"),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "memory": memory.get("MemTotal", 0),
        "available": memory.get("MemAvailable", 0),
        "cache": {
            "path": cache,
            "held": {repo: held(model_folder(cache, repo)) for repo in wanted["repos"]},
            **space(cache),
        },
        "present": wanted["look"] and present(wanted["look"], cache),
        "gpus": [dict(zip(("name", "uuid", "driver"), line.split(", "), strict=True)) for line in gpus],
        "docker": engine,
        "links": addresses(),
        "ibdev2netdev": output("ibdev2netdev"),
        "rdma": rdma_devices(),
        "infiniband_device": os.path.isdir("/dev/infiniband"),
        "listening": listening(),
        "host_key": read("/etc/ssh/ssh_host_ed25519_key.pub"),
        "sudo": wanted["sudo"] and succeeds("sudo", "-n", "true"),
        "lease": json.loads(read(LEASE) or "null"),
        "records": records(stack, set(engine.get("image_ids", [])), engine.get("swarm", "")),
        "records_changed": last_change(stack_directory(stack)),
        "model_config": json.loads(read(os.path.join(weights.get("path", "/nowhere"), "config.json")) or "null"),
    }
    facts["docker"].pop("image_ids", None)
    print(json.dumps(facts))


main()
