"""Shared by the scripts that run on a Spark: records, directories and Docker's API. Python 3.10+, no packages."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contracts import Gpu, HeadSource, Network, Record

STATE = os.path.expanduser(f"~{os.environ.get('SUDO_USER', '')}/.local/state/dgx-spark")
"""Holds the lease and one directory of records per stack; of the login user, also in a script that runs as root.
Source: XDG base directories, state that may be lost."""

LEASE = os.path.join(STATE, "lease.json")

PARCEL: dict[str, str] = {}
"""Name → text of the scripts that came by stdin with the one that runs; empty where it runs from its stack's folder."""

PERFTEST = ("ib_write_bw", "ib_write_lat")
"""Programs of the package perftest that measure RDMA (bandwidth.py)."""

GPU = {"busy": "utilization.gpu", "temperature": "temperature.gpu", "power": "power.draw", "clock": "clocks.sm"}
"""Per cent, degrees Celsius, watts, MHz. Source: nvidia-smi --help-query-gpu."""

# sshd gives a login user none of these, and ip, ibdev2netdev and others may be there.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"


def ethernet_address() -> str:
    """The address of this Spark on which sshd was reached. Source: sshd(8), SSH_CONNECTION."""
    return os.environ["SSH_CONNECTION"].split()[2]


SWARM_BRIDGE = "docker_gwbridge"
"""Network that Docker makes when a node enters a Swarm, and keeps when it leaves."""


def job() -> tuple[str, Any]:
    """(verb, input): `apply` or `remove`, and the JSON on stdin."""
    return sys.argv[1], json.load(sys.stdin)


def run(apply: Callable[[Any], None], remove: Callable[[Any], None]) -> None:
    """Do what the command line asks for with what is on stdin."""
    verb, inputs = job()
    {"apply": apply, "remove": remove}[verb](inputs)


def read(path: str) -> str:
    """A small file without surrounding blanks; '' where it can't be read."""
    try:
        # Whatever it is that stands there: people put files into a cache by hand.
        with open(path, errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def gpu_now() -> Gpu:
    """The GPU as it is at this moment, by the keys of GPU; None for what the driver does not print."""
    argv = ["nvidia-smi", f"--query-gpu={','.join(GPU.values())}", "--format=csv,noheader,nounits"]
    try:
        line = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        line = ""
    values = [number(word) for word in line.split(", ")]
    busy, temperature, power, clock = values if len(values) == len(GPU) else [None] * len(GPU)
    return {"busy": busy, "temperature": temperature, "power": power, "clock": clock}


def existing(path: str) -> str:
    """`path`, or the directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def model_folder(cache: str, repo: str) -> str:
    """Where huggingface_hub keeps a repository below HF_HOME; a directory (an absolute path) is its own."""
    return repo if repo.startswith("/") else os.path.join(cache, "hub", f"models--{repo.replace('/', '--')}")


def remove_model(folder: str) -> None:
    """With the locks that huggingface_hub keeps beside it, and what no other model shares with it."""
    shared = {stored(blob) for blob in glob.glob(os.path.join(glob.escape(folder), "blobs", "*"))}
    shutil.rmtree(folder, ignore_errors=True)
    hub, name = os.path.split(folder)
    shutil.rmtree(os.path.join(hub, ".locks", name), ignore_errors=True)
    for payload in shared - {""}:
        sweep(payload)


def trail(path: str) -> list:
    """`path`, and what it leads to link by link; the last is no link, and may not be there."""
    found = [path]
    while os.path.islink(found[-1]) and len(found) < 40:
        folder = os.path.realpath(os.path.dirname(found[-1]))
        found.append(os.path.normpath(os.path.join(folder, os.readlink(found[-1]))))
    return found


STORE_MARK = ".huggingface-shared-blobs"


def stored(blob: str) -> str:
    """The file to which a model's blob is a link, in the store that all models of a cache share; '' for none.

    A payload hub/blobs/XY/HASH is named by Xet's hash and not by its sha256; HASH.refs lists the blobs that are links
    to it, HASH.lock is locked by whoever changes one. Source: huggingface_hub ≥ 1.32, utils/_shared_blobs.py.
    """
    if not os.path.islink(blob):
        return ""
    store = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(blob))), "blobs")
    target = os.path.normpath(os.path.join(os.path.dirname(blob), os.readlink(blob)))
    below = os.path.dirname(os.path.dirname(target)) == store
    return target if below and read(os.path.join(store, STORE_MARK)) == "1" else ""


def references(payload: str) -> set[str] | None:
    """The blobs that are links to a stored file; None where no account was kept, so that there may be any."""
    hub = os.path.dirname(os.path.dirname(os.path.dirname(payload)))
    try:
        with open(f"{payload}.refs") as stream:
            blobs = [os.path.join(hub, line.strip()) for line in stream]
    except OSError:
        return None
    return {blob for blob in blobs if stored(blob) == payload}


def sweep(payload: str) -> None:
    """Take a stored file away unless a model still has it. One that is not ours to remove stays, as with `hf cache`."""
    with contextlib.suppress(OSError), open(f"{payload}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if references(payload) == set():
            os.unlink(payload)
            os.unlink(f"{payload}.refs")


def held(folder: str) -> int:
    """Bytes of a model on disk, parts of interrupted downloads included, and what it shares with others."""
    sizes = {}
    for base, _, names in os.walk(folder):
        for name in names:
            # A download renames its files, and a link may lead nowhere.
            with contextlib.suppress(OSError):
                about = os.stat(os.path.join(base, name))
                # A file may have several names.
                sizes[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(sizes.values())


def stamp(path: str) -> list:
    """[size, mtime in ns]: changes with whatever is written to the file; [-1, 0] where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return [-1, 0]
    return [about.st_size, about.st_mtime_ns]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def key_file(stack: str, kind: str) -> str:
    """Private key with which this Spark copies from the head (copy_key.py); `kind` is that of its record."""
    return os.path.join(stack_directory(stack), kind.replace("-", "_"))


def from_head(source: HeadSource, key: str) -> list:
    """`ssh` to the head over the fabric with a key of the stack; source: address, user, port, host_key."""
    options = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=5",
        "HostKeyAlias=head",
        f"KnownHostsCommand=/bin/echo head {source['host_key']}",
        "UserKnownHostsFile=none",
        # Hardware AES on both Arm and x86: the fastest that OpenSSH has.
        "Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
    )
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", key, "-p", str(source["port"]), *words]


def stack_directory(stack: str) -> str:
    return os.path.join(STATE, stack.replace("/", "."))


def scripts_directory(stack: str) -> str:
    """Where node.py lays the scripts that this stack's steps run (components/remote/parcel.py)."""
    return os.path.join(stack_directory(stack), "scripts")


def program(stack: str, name: str) -> str:
    """Text of a program that runs in a container (components/inside/)."""
    with open(os.path.join(scripts_directory(stack), "inside", name)) as stream:
        return stream.read()


def record_path(stack: str, kind: str) -> str:
    return os.path.join(stack_directory(stack), f"{kind}.json")


NCCL = re.compile(r"([\w.-]+):(\d+):\d+ \[-?\d+\] (?:\S+ )?NCCL (?:INFO|WARN) (.*)")
"""host, pid and text of a line of NCCL's log, whatever Ray or MPI have put before it."""

CHANNEL, CHOSEN = re.compile(r"via NET/([^/]+)"), re.compile(r"Using network (.+)")
"""A connection to another Spark that was really set up; and what the communicator uses between Sparks. Not
`NET/IB : Using`, which is the list of devices, printed with an empty one too. Source: NCCL 2.27 to 2.30,
src/transport/net.cc and src/init.cc."""

NO_DEVICE = "NCCL finds no RDMA device in the container"
NO_PLUGIN = "NCCL_NET names a network that has no device there"


def networks(lines: Iterable[str]) -> list[Network]:
    """What each rank's NCCL says of its network: {host, network, proven, finding}, one for each Spark that speaks.

    network   `IB`, `Socket` or a plugin's name, of the last communicator; '' while NCCL has not said it
    proven    a channel runs over it, so it is more than a choice
    finding   what is wrong by NCCL's own words, or ''
    """
    found: dict = {}
    for line in lines:
        match = NCCL.search(line) if "NCCL" in line else None
        if match:
            host, pid, text = match.groups()
            about = found.pop((host, pid), {"chosen": "", "channels": set(), "off": False, "finding": ""})
            _read_nccl(about, text)
            found[host, pid] = about
    # A rank that was started again speaks for itself: the process that spoke last counts.
    last = {host: about for (host, _), about in found.items()}
    return [_network(host, about) for host, about in sorted(last.items())]


def _read_nccl(about: dict, text: str) -> None:
    if match := CHANNEL.search(text):
        about["channels"].add(match[1])
    elif match := CHOSEN.match(text):
        about["chosen"] = match[1].strip()
    elif text.startswith("NCCL_IB_DISABLE set by environment to 1"):
        about["off"] = True
    elif text.startswith(("NET/IB : No device found", "Failed to initialize NET plugin IB")):
        about["finding"] = NO_DEVICE
    elif text.startswith("Failed to initialize any NET plugin"):
        about["finding"] = NO_PLUGIN


def _network(host: str, about: dict[str, Any]) -> Network:
    # One channel over sockets slows all down.
    used = "Socket" if "Socket" in about["channels"] else next(iter(sorted(about["channels"])), "")
    finding = "" if about["off"] and about["finding"] == NO_DEVICE else about["finding"]
    return {"host": host, "network": used or about["chosen"], "proven": bool(used), "finding": finding}


def models() -> dict:
    """Record file → record, of every model that a stack serves or has staged on this Spark."""
    found = {path: json.loads(read(path) or "{}") for path in glob.glob(os.path.join(STATE, "*", "*.json"))}
    return {path: record for path, record in found.items() if "model" in record}


def discards(stack: str) -> str:
    """File with the folders of models that go when the stack hands this Spark back, one a line."""
    return os.path.join(stack_directory(stack), "discards")


def write_record(wanted: Record, checks: dict, **more: object) -> None:
    """Say that `wanted` (stack, kind, spec, generation) is in place; written last, and whole or not at all.

    checks   what the probe must find for the record to count as intact:
             files {path: stamp}, digests {path: sha256}, lines {path: [line]}, images [id], directories [path],
             swarm (id of this node in its Swarm)
    """
    path = record_path(wanted["stack"], wanted["kind"])
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    record = {"spec": wanted["spec"], "generation": wanted["generation"], "checks": checks, **more}
    write_file(path, json.dumps(record, indent=1))


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, also beside another one that writes it; of a link, the file that it leads to."""
    path = os.path.realpath(path)
    partial = f"{path}.{os.getpid()}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(text)
    if "SUDO_UID" in os.environ and path.startswith(os.path.realpath(STATE)):
        os.chown(partial, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
    os.replace(partial, path)


def lease_holder() -> str:
    """The stack that holds this Spark; '' for none."""
    return str(json.loads(read(LEASE) or "{}").get("stack", ""))


def take_lease(stack: str) -> str:
    """Write the lease for `stack`; returns the file's one line."""
    line = json.dumps({"stack": stack})
    write_file(LEASE, line)
    return line


def read_record(wanted: Record) -> dict[str, Any]:
    """The record of this kind as it stands, whatever its generation; {} for none."""
    found: dict[str, Any] = json.loads(read(record_path(wanted["stack"], wanted["kind"])) or "{}")
    return found


def digest_of(path: str) -> str:
    """sha256 of a file's content; '' where it can't be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 24):
                digest.update(block)
            # Memory that the GPU shares should not hold what was only looked at.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return ""
    return digest.hexdigest()


def docker(*argv: str) -> str:
    """Output of a docker command; ends the script with its words where it fails."""
    done = subprocess.run(["docker", *argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docker {argv[0]} {argv[1]}: {done.stderr.strip()}")
    return done.stdout.strip()


def image_parts(about: dict) -> dict:
    """What an image is made of, from what `docker image inspect` says, in words that all of Docker's stores share:
    layers [digest of what is in one], config (digest of what a container gets beside them)."""
    config = about.get("Config") or {}
    parts = [config.get(key) or None for key in ("Env", "Entrypoint", "Cmd", "WorkingDir", "User")]
    digest = hashlib.sha256(json.dumps([*parts, about.get("Architecture")]).encode()).hexdigest()
    return {"layers": (about.get("RootFS") or {}).get("Layers") or [], "config": digest}


def content_of(image: str) -> str:
    """Digest of an image's parts; '' where it is not here.

    Equal images have equal contents whatever keeps them, and not always equal ids: an id is the config's digest with
    Docker's storage drivers, the manifest's in containerd's image store, which new installations of Docker 29 have.
    """
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True)
    if done.returncode:
        return ""
    (about,) = json.loads(done.stdout)
    parts = image_parts(about)
    return hashlib.sha256("\n".join([*parts["layers"], parts["config"]]).encode()).hexdigest()


def build(dockerfile: str, tag: str, *words: str, limit: int, buildkit: bool = False) -> str:
    """Id of the image that a Dockerfile without files beside it makes; ends the script with the build's last words.

    buildkit  it needs BuildKit; otherwise whatever builder this Docker has will do
    """
    # No builder of the user's, which may not see the images here. Nothing of a build's stays in ~/.docker, or in /tmp,
    # where buildx leaves the Dockerfile. No attestation, whose time would make each build another image.
    # Source: docs.docker.com, build variables.
    more = {"BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    more |= {"DOCKER_BUILDKIT": "1"} if buildkit else {}
    argv = ["docker", "build", "--network=host", "--tag", tag, *words, "-"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **more, "BUILDX_CONFIG": folder, "TMPDIR": folder}
        try:
            done = subprocess.run(
                argv, input=dockerfile, capture_output=True, text=True, timeout=limit, env=environment
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"the build of {tag} was not done within {limit} s")
    if done.returncode:
        sys.exit(f"the build of {tag} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return docker("image", "inspect", "--format={{.Id}}", tag)


def is_named(image: dict, name: str) -> bool:
    """Of an image as Docker lists it. `name`: REPOSITORY:TAG, or with @DIGEST behind it, which alone counts then:
    Docker keeps no tag for it."""
    tagged, _, digest = name.partition("@")
    if not digest:
        return name in (image.get("RepoTags") or [])
    return f"{tagged.rpartition(':')[0]}@{digest}" in (image.get("RepoDigests") or [])


def has_record(wanted: Record) -> bool:
    """Does a record of exactly this thing, in this generation, stand?"""
    record = read_record(wanted)
    return (
        bool(record)
        and all(record[key] == wanted[key] for key in ("spec", "generation"))
        and holds(record["checks"], set())
    )


def remove_record(wanted: Record) -> None:
    """Forget a record, unless a newer one has taken its place."""
    if read_record(wanted).get("generation") == wanted["generation"]:
        os.unlink(record_path(wanted["stack"], wanted["kind"]))


def leave_swarm(wanted: Record, *words: str) -> None:
    """Leave the Swarm if this stack joined it, and take away the bridge that Docker made for it."""
    record = read_record(wanted)
    if not record.get("made"):
        return
    # Fails where somebody has left it already.
    subprocess.run(["docker", "swarm", "leave", *words], capture_output=True)
    if not record["bridge"]:
        subprocess.run(["docker", "network", "rm", SWARM_BRIDGE], capture_output=True)


def has_swarm_bridge() -> bool:
    return Docker().get(f"/networks/{SWARM_BRIDGE}") is not None


class Docker(http.client.HTTPConnection):
    """The Docker daemon of this Spark, over its socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=30)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect("/var/run/docker.sock")

    def get(self, path: str) -> Any:
        """Decoded answer; None where Docker says 404."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        self.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self.getresponse()
        said = answer.read()
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise OSError(f"Docker answers {answer.status}: {said.decode()}")
        return json.loads(said or "null")


def containers(stack: str, *labels: str) -> list[dict[str, Any]]:
    """The stack's containers as Docker's API lists them, running or not; `labels`: KEY=VALUE that they also carry."""
    wanted = json.dumps({"label": [f"dgx-spark.stack={stack}", *labels]})
    found: list[dict[str, Any]] = Docker().get(f"/containers/json?all=1&filters={urllib.parse.quote(wanted)}")
    return found


def name_of(container: dict) -> str:
    """Of a container as Docker lists it; one that is being removed has none any more."""
    return str(container["Names"][0].lstrip("/") if container.get("Names") else container["Id"][:12])


def labels_of(container: dict) -> dict:
    return container.get("Labels") or {}


HEADERS = 28
"""Bytes of IPv4 and ICMP headers in a ping."""


def ping(source: str, peer: str, mtu: int) -> str:
    """`answers`, `small only` (not to packets as large as the MTU) or `silent`. `source`: own address or interface."""
    argv = ["ping", "-c", "1", "-W", "2", "-I", source, peer]
    if subprocess.run(argv, capture_output=True).returncode:
        return "silent"
    full = [*argv, "-M", "do", "-s", str(mtu - HEADERS)]
    return "small only" if subprocess.run(full, capture_output=True).returncode else "answers"


def holds(checks: dict, images: set, swarm: str = "") -> bool:
    """Is everything that a record speaks of still there? `swarm`: this node's id in its Swarm."""

    def lines(path: str) -> set:
        try:
            with open(path) as stream:
                return {line.rstrip("\n") for line in stream}
        except FileNotFoundError:
            return set()

    return (
        all(stamp(path) == wanted for path, wanted in checks.get("files", {}).items())
        and all(set(wanted) <= lines(path) for path, wanted in checks.get("lines", {}).items())
        and all(image in images for image in checks.get("images", []))
        and all(os.path.isdir(path) for path in checks.get("directories", []))
        and all(digest_of(path) == wanted for path, wanted in checks.get("digests", {}).items())
        and checks.get("swarm", swarm) == swarm
    )
