"""The images of a genuine gateway and chat page, PyPI's LiteLLM and Open WebUI, in place of their stand-ins'.

Each is laid out as its own Dockerfile has it, so that what the program says of a container meets what it is for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from components.plan.beside import IMAGES as BESIDE
from simulator import cache, images, rootfs
from simulator.genuine import wheels
from simulator.layout import CACHE

BACKEND = "/app/backend"
"""Where Open WebUI's image has it, and where it starts. Source: its Dockerfile."""

MODELS = f"{BACKEND}/data/cache/embedding/models"

WEBUI = {
    "ENV": "prod", "PORT": "8080", "DOCKER": "true", "WEBUI_SECRET_KEY": "",
    "OLLAMA_BASE_URL": "/ollama", "OPENAI_API_BASE_URL": "", "OPENAI_API_KEY": "",
    "RAG_EMBEDDING_MODEL": "sentence-transformers/all-MiniLM-L6-v2", "RAG_RERANKING_MODEL": "",
    "SENTENCE_TRANSFORMERS_HOME": MODELS, "HF_HOME": MODELS,
    "SCARF_NO_ANALYTICS": "true", "DO_NOT_TRACK": "true", "ANONYMIZED_TELEMETRY": "false",
}  # fmt: skip
"""What its image sets. Source: the same."""

START = """#!/usr/bin/env bash
# What its own does on a machine without Ollama, CUDA and Hugging Face's Spaces.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
if [ -z "$WEBUI_SECRET_KEY" ]; then
    [ -e .webui_secret_key ] || head -c 12 /dev/random | base64 >.webui_secret_key
    WEBUI_SECRET_KEY=$(cat .webui_secret_key)
fi
export WEBUI_SECRET_KEY
exec uvicorn open_webui.main:app --host "${HOST:-0.0.0.0}" --port "${PORT:-8080}" --forwarded-allow-ips '*'
"""
"""Its backend/start.sh, which is in no wheel."""

GENUINE = {
    BESIDE["gateway"]: images.Image(
        BESIDE["gateway"], ("base", "litellm"), entrypoint=("docker/prod_entrypoint.sh",), folder="/app"
    ),
    BESIDE["chat"]: images.Image(
        BESIDE["chat"], ("base", "open-webui"), WEBUI, command=("bash", "start.sh"), folder=BACKEND
    ),
}


def added(built: images.Built) -> images.Built:
    """These images in place of those of the same names."""
    layers = {**built.layers, **{name: _layer(name, make) for name, make in MAKERS.items()}}
    chosen = tuple(GENUINE.get(image.name, image) for image in built.images)
    return replace(built, layers=layers, images=chosen, kind=f"{built.kind}beside")


def is_made() -> bool:
    return rootfs.is_made() and all((CACHE / _layer_name(name)).exists() for name in MAKERS)


def _layer_name(name: str) -> str:
    return f"layer-{name}-{wheels.key(name, Path(__file__))}.tar"


def _layer(name: str, make: Callable[[Path], None]) -> Path:
    return cache.kept(_layer_name(name), partial(images.write_layer, make))


def _litellm(root: Path) -> None:
    _program(root, wheels.install(root, "litellm"), "litellm")
    (root / "app").mkdir()


def _open_webui(root: Path) -> None:
    packages = wheels.install(root, "open-webui")
    _program(root, packages, "uvicorn")
    images.take(root, [rootfs.program("base64")])
    backend = root / BACKEND.lstrip("/")
    (backend / "data").mkdir(parents=True)
    code = backend / "open_webui"
    (packages / "open_webui").rename(code)
    (code / "frontend").rename(backend.parent / "build")
    shutil.copy(code / "CHANGELOG.md", backend.parent)
    (backend.parent / "package.json").write_text(json.dumps({"version": _version(packages)}))
    images.executable(backend / "start.sh", START)


def _version(packages: Path) -> str:
    (about,) = packages.glob("open_webui-*.dist-info")
    return about.name.removesuffix(".dist-info").partition("-")[2]


def _program(root: Path, packages: Path, name: str) -> None:
    """One of those that the packages bring onto PATH; the others go."""
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    (packages / "bin" / name).rename(root / "usr/bin" / name)
    shutil.rmtree(packages / "bin")


MAKERS: dict[str, Callable[[Path], None]] = {"litellm": _litellm, "open-webui": _open_webui}
"""Layer → what makes it, of the lock of the same name."""
