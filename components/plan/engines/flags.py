"""Options and variables that a configured engine version does not have: said at preview, where it is known. Pure.

Sources: the command lines of vLLM 0.19, 0.31 and 0.32, SGLang 0.5.23 and TensorRT-LLM 1.2, read from the packages
themselves; vllm/envs.py of 0.19 and 0.31.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from components.problems import Problem, Severity

Version = tuple[int, ...]

NGC_VLLM = {
    "25.10": (0, 10), "26.01": (0, 11), "26.02": (0, 15), "26.03": (0, 17), "26.04": (0, 19), "26.05": (0, 20),
    "26.08": (0, 27), "26.09": (0, 29), "26.10": (0, 31),
}  # fmt: skip
"""NVIDIA's monthly tags, which are no versions of vLLM. Source: the container's release notes, rel-YY-MM; 26.02 and
26.08: reports from the field."""


@dataclass(frozen=True)
class Absent:
    """An option that is not there."""

    flag: str
    version: Version
    """From this version on for sure; it may be gone in earlier ones too."""

    instead: str
    until: Version | None = None
    """The first version that has it; None: none has it again."""


ABSENT: dict[str, tuple[Absent, ...]] = {
    "vllm": (
        Absent("--swap-space", (0, 19), "remove it: there is no CPU swap any more"),
        Absent("--disable-log-requests", (0, 19), "--no-enable-log-requests"),
        Absent("--device", (0, 19), "remove it: the platform is found out"),
        Absent("--guided-decoding-backend", (0, 19), "--structured-outputs-config"),
        Absent("--task", (0, 19), "--runner"),
        Absent("--enable-reasoning", (0, 19), "serving.reasoningParser alone"),
        Absent("--max-seq-len-to-capture", (0, 19), "--compilation-config"),
        Absent("--calculate-kv-scales", (0, 31), "remove it: scales come with the weights"),
        Absent("--max-num-partial-prefills", (0, 31), "remove it: there is one"),
        Absent("--max-long-partial-prefills", (0, 31), "remove it: there is one"),
        Absent("--override-attention-dtype", (0, 31), "remove it"),
        Absent("--linear-backend", (0, 19), "serving.env VLLM_NVFP4_GEMM_BACKEND in this version", (0, 20)),
    ),
    "sglang": (),
    "trtllm": (
        Absent("--served_model_name", (1, 2), "remove it: the name is the model's"),
        Absent("--grpc", (1, 2), "the sub-command grpc, which this program does not start"),
        Absent("--visual_gen_args", (1, 2), "remove it: it comes with 1.4"),
    ),
}


@dataclass(frozen=True)
class Unread:
    """A variable that is read no more: the engine starts, and does something else."""

    name: str
    version: Version
    """From this version on for sure."""

    instead: str
    """serving.extraArgs"""


UNREAD: dict[str, tuple[Unread, ...]] = {
    "vllm": (
        # NVIDIA's playbook for NVFP4 models still sets both.
        Unread("VLLM_NVFP4_GEMM_BACKEND", (0, 31), "--linear-backend, e.g. --linear-backend=marlin"),
        Unread("VLLM_USE_FLASHINFER_MOE_FP4", (0, 31), "--moe-backend, e.g. --moe-backend=marlin for 0"),
        Unread("VLLM_ATTENTION_BACKEND", (0, 19), "--attention-backend"),
    ),
}

STYLE = {"trtllm": (re.compile(r"^--[a-z0-9_]+(=|$)"), "trtllm-serve writes its options with underscores")}


def version(engine: str, image: str) -> Version | None:
    """The engine's version, as far as the image's tag tells it."""
    tag = image.partition("@")[0].rpartition(":")[2]
    if engine == "vllm" and image.startswith("nvcr.io/nvidia/vllm:"):
        return NGC_VLLM.get(tag[:5])
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", tag)
    return tuple(int(part) for part in found.groups() if part) if found else None


def older(has: Version, least: str) -> bool:
    """A version of which less is known counts as its newest: 0.19 may be 0.19.1."""
    wanted = tuple(int(part) for part in least.split("."))
    return has[: len(wanted)] < wanted[: len(has)]


def _lacks(known: Version, absent: Absent) -> bool:
    return known >= absent.version and (absent.until is None or known < absent.until)


MONTH = re.compile(r"(\d\d)\.(\d\d)")

RELEASED = {
    "lmsysorg/sglang:v0.5.21": date(2026, 10, 1),
    "nvcr.io/nvidia/tensorrt-llm/release:1.2.1": date(2026, 4, 20),
}
"""When the default images came out whose tags are no months. Source: docs/engines.md."""


def age(image: str, today: date) -> int | None:
    """Months since the image came out, as far as its name tells; None: it does not."""
    name = image.partition("@")[0]
    found = MONTH.match(name.rpartition(":")[2]) if name.startswith("nvcr.io/nvidia/") else None
    came = date(2000 + int(found[1]), int(found[2]), 1) if found and 1 <= int(found[2]) <= 12 else RELEASED.get(name)
    return None if came is None else (today.year - came.year) * 12 + today.month - came.month


def given(words: Sequence[str]) -> dict[str, str]:
    """Option → its value, of `--name=value`, `--name value` and `--name` (''); names with hyphens, however written."""
    found = {}
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            apart = "" if following.startswith("-") else following
            found[name.replace("_", "-")] = value if equals else apart
    return found


SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""What may stand behind a number. Source: vLLM, human_readable_int."""


def number(text: str) -> float | None:
    """Of an option's value; None where it is none, as `auto`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", text)
    return float(found[1]) * SUFFIXES[found[2]] if found else None


def refusals(engine: str, image: str, words: tuple[str, ...]) -> Iterator[Problem]:
    """`words`: serving.extraArgs."""
    known = version(engine, image)
    style, why = STYLE.get(engine, (None, ""))
    for word in words:
        flag = word.split("=")[0]
        for absent in ABSENT[engine]:
            if flag == absent.flag and known is not None and _lacks(known, absent):
                yield Problem(
                    "serving.extraArgs",
                    f"{flag} is no option of {engine} {'.'.join(map(str, known))} ({image})",
                    f"use {absent.instead}" if absent.instead.startswith("--") else absent.instead,
                )
        if style and word.startswith("--") and not style.match(word):
            yield Problem("serving.extraArgs", f"{flag}: {why}", flag[:2] + flag[2:].replace("-", "_"))


def unread(engine: str, image: str, names: Iterable[str]) -> Iterator[Problem]:
    """`names`: variables of serving.env."""
    known = version(engine, image)
    for gone in UNREAD.get(engine, ()):
        if gone.name in names and known is not None and known >= gone.version:
            yield Problem(
                f"serving.env.{gone.name}",
                f"is not read by {engine} {'.'.join(map(str, known))} ({image})",
                f"remove it, and add to serving.extraArgs {gone.instead}",
                Severity.WARN,
            )
