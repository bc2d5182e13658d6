"""What is known of each model beside its own config.json: what it needs and how to serve it on Sparks, with sources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from components.problems import Problem, Refused

FILE = Path(__file__).parent / "models.yaml"

Task = Literal["generate", "embed", "score"]
"""What a model is for. All but the first are pooling models: they have no text to give."""


class Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Served(Known):
    """One engine's settings for a model. None: nothing to say; the engine's own default holds."""

    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    """TensorRT-LLM: for the cache, of what is free after the weights."""

    trust_remote_code: bool | None = None
    expert_parallel: bool | None = None
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    load_format: str | None = None
    image: str | None = None
    """Where the engine's default image can't load the model."""

    hf_overrides: dict[str, Any] | None = None
    """vLLM: what its config.json should say."""

    chat_template: str | None = None
    """vLLM: file beside models.yaml with the prompt that the model was trained on, where its repository has none that
    fits."""

    max_num_tokens: int | None = None
    max_batch_size: int | None = None
    backend: str | None = None


class Parameters(Known):
    """In 10^9."""

    total: float
    active: float
    """Used per token."""


class Geometry(Known):
    layers: int
    heads: int
    kv_heads: int | None
    max_length: int
    """Tokens."""

    head_dim: int | None = None
    experts: int | None = None


class CacheBytes(Known):
    """Bytes with 2-byte elements, whole model (components/plan/fit.py)."""

    kind: str
    per_token: int
    per_sequence: int = 0
    per_token_all_full: int | None = None
    """For an engine without separate pools for sliding layers."""


class Throughput(Known):
    """What somebody measured and published; the order of magnitude to expect."""

    engine: str
    sparks: int
    requests: int
    """At a time."""

    tokens_per_second: float
    """Of output, all requests together."""

    source: str


class Source(Known):
    geometry: str
    weights: str


class Entry(Known):
    id: str
    """Hugging Face repository."""

    name: str
    """Short name for `pulumi config set model`."""

    task: Task | None = None
    """None: as its files say (plan/models.py)."""

    former: tuple[str, ...] = ()
    """Ids and names that it had before, or has elsewhere."""

    quantization: str | None = None
    weights_gb: float | None = None
    """What an engine loads, in 10^9 bytes."""

    parameters: Parameters | None = None
    geometry: Geometry | None = None
    cache: CacheBytes | None = None
    gated: bool = False
    startup_timeout: int | None = None
    """Seconds from start to first answer; None: by the weights' size (engines/common.py)."""

    throughput: tuple[Throughput, ...] = ()

    vllm: Served = Served()
    sglang: Served = Served()
    trtllm: Served = Served()
    confidence: str | None = None
    source: Source | None = None
    note: str | None = None

    def served(self, engine: str) -> Served:
        found: Served = getattr(self, engine)
        return found


@cache
def entries(own: str = "") -> tuple[Entry, ...]:
    """The catalog, with the entries of the user's file `own` before ours and in their place.

    Raises Refused with every mistake of that file.
    """
    ours = tuple(Entry.model_validate(item) for item in _read(FILE))
    if not own:
        return ours
    path = Path(own).expanduser()
    try:
        raw = _read(path)
    except OSError as error:
        raise Refused([Problem("catalog", f"{path}: {error.strerror}", "name a file on this machine")]) from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise Refused([Problem("catalog", f"{path} is no YAML with a list `models`", f"write it as {FILE}")]) from None
    theirs = _checked(path, raw)
    taken = {word for entry in theirs for word in (entry.id, entry.name)}
    return (*theirs, *(entry for entry in ours if not {entry.id, entry.name} & taken))


def prompt(name: str) -> str:
    """Text of a prompt template beside models.yaml."""
    return (FILE.parent / name).read_text()


def _read(path: Path) -> list[Any]:
    # libyaml, where PyYAML was built with it, reads our file ten times as fast: every preview does.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[Any] = yaml.load(path.read_text(), Loader=loader)["models"]
    return list(found)


def _checked(path: Path, raw: Sequence[Any]) -> tuple[Entry, ...]:
    made, problems = [], []
    for number, item in enumerate(raw):
        try:
            made.append(Entry.model_validate(item))
        except ValidationError as error:
            problems += [
                Problem(
                    f"{path}: models[{number}].{'.'.join(map(str, detail['loc']))}",
                    detail["msg"][0].lower() + detail["msg"][1:],
                    f"write it as the entries in {FILE}",
                )
                for detail in error.errors()
            ]
    if problems:
        raise Refused(problems)
    return tuple(made)


def find(model: str, own: str = "") -> Entry | None:
    """By repository, short name or a former one; None: not in the catalog."""
    known = entries(own)
    exact = (entry for entry in known if model in (entry.id, entry.name))
    return next(exact, None) or next((entry for entry in known if model in entry.former), None)
