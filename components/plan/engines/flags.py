"""Options that a configured engine version does not have: refused at preview, where it is known. Pure.

Sources: the command lines of vLLM 0.32, SGLang 0.5.23 and TensorRT-LLM 1.2, read from the packages themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from components.problems import Problem

Version = tuple[int, ...]

NGC_VLLM = {"26.04": (0, 19)}
"""NVIDIA's monthly tags, which are no versions of vLLM. Source: the container's release notes."""


@dataclass(frozen=True)
class Absent:
    """An option that is not there."""

    flag: str
    version: Version
    """From this version on for sure; it may be gone in earlier ones too."""

    instead: str


ABSENT: dict[str, tuple[Absent, ...]] = {
    "vllm": (
        Absent("--swap-space", (0, 32), "remove it: there is no CPU swap any more"),
        Absent("--disable-log-requests", (0, 32), "--no-enable-log-requests"),
        Absent("--device", (0, 32), "remove it: the platform is found out"),
        Absent("--guided-decoding-backend", (0, 32), "--structured-outputs-config"),
        Absent("--task", (0, 32), "--runner"),
        Absent("--enable-reasoning", (0, 32), "serving.reasoningParser alone"),
        Absent("--max-seq-len-to-capture", (0, 32), "--compilation-config"),
    ),
    "sglang": (),
    "trtllm": (
        Absent("--served_model_name", (1, 2), "remove it: the name is the model's"),
        Absent("--grpc", (1, 2), "the sub-command grpc, which this program does not start"),
        Absent("--visual_gen_args", (1, 2), "remove it: it comes with 1.4"),
    ),
}

STYLE = {"trtllm": (re.compile(r"^--[a-z0-9_]+(=|$)"), "trtllm-serve writes its options with underscores")}


def version(engine: str, image: str) -> Version | None:
    """The engine's version, as far as the image's tag tells it."""
    tag = image.rpartition(":")[2]
    if engine == "vllm" and image.startswith("nvcr.io/nvidia/vllm:"):
        return NGC_VLLM.get(tag[:5])
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", tag)
    return tuple(int(part) for part in found.groups() if part) if found else None


def refusals(engine: str, image: str, words: tuple[str, ...]) -> Iterator[Problem]:
    """`words`: serving.extraArgs."""
    known = version(engine, image)
    style, why = STYLE.get(engine, (None, ""))
    for word in words:
        flag = word.split("=")[0]
        for absent in ABSENT[engine]:
            if flag == absent.flag and known is not None and known >= absent.version:
                yield Problem(
                    "serving.extraArgs",
                    f"{flag} is no option of {engine} {'.'.join(map(str, known))} ({image})",
                    f"use {absent.instead}" if absent.instead.startswith("--") else absent.instead,
                )
        if style and word.startswith("--") and not style.match(word):
            yield Problem("serving.extraArgs", f"{flag}: {why}", flag[:2] + flag[2:].replace("-", "_"))
