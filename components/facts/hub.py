"""A model as its repository shows it: one commit, its files and its configuration. Pure."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components.facts.geometry import Geometry, read

NEVER = (
    "*.gguf", "*.ggml", "*.pth", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.mlmodel",
    "*.llamafile", "optimizer.*", "scheduler.*", "scaler.pt", "rng_state*", "training_args.bin",
)  # fmt: skip
"""Names of files that no engine here loads: the weights for other programs, and what a training run left. Source:
vLLM, weight_utils.filter_files_not_needed_for_inference; listings of the repositories."""

OTHERS = (
    "original", "metal", "onnx", "openvino", "coreml", "gguf", "flax", "tf", "torchscript", "checkpoint-*",
    "global_step*",
)  # fmt: skip
"""Folders that repeat the weights in another format or from an earlier moment, wherever they are. openai/gpt-oss-120b
alone would be 196 GB instead of 65. Source: listings of the repositories, facts.md C and G3."""

SAFETENSORS = ("*.safetensors",)
PICKLED = ("*.bin", "*.pt")
"""What engines fall back on where there is no safetensors. Source: vLLM, DefaultModelLoader._prepare_weights."""

CONSOLIDATED = "consolidated*"
"""Mistral's own format, mostly beside that of transformers."""

ADAPTER = "adapter_model.*"
"""What was trained on top of another model (LoRA). Source: peft, WEIGHTS_NAME."""

MODULE = re.compile(r"^\d+_\w+/")
"""Folder of a sentence-transformers module, whose weights belong to the model."""

WIDTHS = {
    "F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 0.5,
    # Engines make 16-bit numbers of them, but for scales, of which there are few.
    "F32": 2,
}  # fmt: skip
"""Bytes of one element once loaded, by safetensors' name of its type. Source: safetensors, Dtype; vLLM,
_resolve_auto_dtype."""


@dataclass(frozen=True)
class File:
    """One file of a repository at a commit."""

    path: str
    size: int
    """Bytes."""

    sha256: str | None
    """Of files in large-file storage; None for small ones, which git names by another hash."""


@dataclass(frozen=True)
class Model:
    """A model at one commit."""

    repo: str
    commit: str
    files: tuple[File, ...]
    """Only what is downloaded (see `selected`)."""

    config: dict[str, Any]
    """Its config.json: geometry, by the names of the transformers library."""

    path: str = ""
    """Of a model that is no repository: its directory, the same on every Spark; `repo` is that too, then."""

    loaded: int = 0
    """Bytes of its weights once an engine has loaded them, as the hub knows the tensors' types; 0: not known."""

    @cached_property
    def geometry(self) -> Geometry:
        """What `config` tells of it."""
        return read(self.config)

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def selected(files: Iterable[File]) -> tuple[File, ...]:
    """Of a whole repository what an engine needs, each weight in one format."""
    kept = [file for file in files if not _is_another(file.path)]
    root = [file.path for file in kept if "/" not in file.path and not _matches(file.path, ADAPTER)]
    safe = [path for path in root if _matches(path, *SAFETENSORS)]
    plain = [path for path in safe if not _matches(path, CONSOLIDATED)]
    folders = {posixpath.dirname(file.path) for file in kept if _matches(file.path, *SAFETENSORS)}
    doubles = {
        file.path
        for file in kept
        if (plain and "/" not in file.path and _matches(file.path, CONSOLIDATED))
        or (_matches(file.path, *PICKLED) and (posixpath.dirname(file.path) in folders or _repeats(file.path, safe)))
    }
    return tuple(sorted((file for file in kept if file.path not in doubles), key=lambda file: file.path))


def _is_another(path: str) -> bool:
    *folders, name = path.split("/")
    return _matches(name, *NEVER) or any(_matches(folder, *OTHERS) for folder in folders)


def _repeats(path: str, safe: list[str]) -> bool:
    """Pickled weights in a folder, beside safetensors at the root."""
    return bool(safe) and "/" in path and not MODULE.match(path)


def _matches(path: str, *patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(posixpath.basename(path), pattern) for pattern in patterns)


def weights(files: Iterable[File]) -> tuple[File, ...]:
    """The files that an engine loads into memory: those at the root, in one format."""
    chosen = [file for file in selected(files) if "/" not in file.path and not _matches(file.path, ADAPTER)]
    for patterns in (SAFETENSORS, PICKLED):
        found = tuple(file for file in chosen if _matches(file.path, *patterns))
        if found:
            return found
    return ()


def unusable(files: Iterable[File]) -> str:
    """Why a repository holds nothing that an engine here could load; '': it does."""
    every = tuple(files)
    if weights(every):
        return ""
    names = [file.path for file in every]
    if any(_matches(name, ADAPTER) or name == "adapter_config.json" for name in names):
        return "is an adapter (LoRA) and no model of its own"
    ggufs = [name for name in names if _matches(name, "*.gguf")]
    if ggufs:
        return f"has its weights as GGUF alone ({ggufs[0]}{' …' if ggufs[1:] else ''}), which these engines don't load"
    folders = sorted(
        {posixpath.dirname(name) for name in names if "/" in name and _matches(name, *SAFETENSORS, *PICKLED)}
    )
    if folders:
        return f"has weights in folders alone ({', '.join(folders[:3])}), and engines load those beside its config.json"
    return "has no weights (*.safetensors, *.bin) at all"


def loaded(parameters: Mapping[str, int], files: Iterable[File]) -> int:
    """Bytes of the weights in memory, by the hub's count of their elements per type; 0 where it can't be right.

    A type that is not known here, or a count that does not go with the files: of some repositories the hub counts a
    part only.
    """
    stored = sum(file.size for file in weights(files))
    if not parameters or any(kind not in WIDTHS for kind in parameters):
        return 0
    held = int(sum(WIDTHS[kind] * count for kind, count in parameters.items()))
    on_disk = held + 2 * parameters.get("F32", 0)
    return held if abs(on_disk - stored) < stored / 50 else 0
