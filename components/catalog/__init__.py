"""What is known of each model beside its own config.json: what it needs and how to serve it on Sparks, with sources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.problems import Problem, Refused
from components.settings.serving import DraftMethod

FILE = Path(__file__).parent / "models.yaml"

Task = Literal["generate", "embed", "score"]
"""What a model is for. All but the first are pooling models: they have no text to give."""


class Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Draft(Known):
    """What guesses tokens ahead, which the model then verifies in one step: the same text, sooner."""

    method: DraftMethod
    tokens: int
    """Guessed at a time."""

    model: str | None = None
    """Its repository; None: it is part of the model's own weights."""

    options: dict[str, Any] = {}
    """vLLM: more keys of --speculative-config."""


class Served(Known):
    """One engine's settings for a model. None: nothing to say; the engine's own default holds."""

    min_version: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] | None = None
    """The engine's first version that can serve it."""

    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    """TensorRT-LLM: for the cache, of what is free after the weights."""

    trust_remote_code: bool | None = None
    expert_parallel: bool | None = None
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    load_format: str | None = None
    """vLLM, SGLang: how its weights are read where `serving.loader` says nothing: what their --load-format takes, or
    prefetch. Nowhere where somebody has reported that it fails."""

    image: str | None = None
    """Where the engine's default image can't load the model. `args`, `env`, `load_format` and `draft` are for this
    image, and are left out where the user has chosen another one."""

    args: tuple[str, ...] = ()
    """More of the engine's own options, `--name=value`; the user's `serving.extraArgs` win."""

    env: dict[str, str] = {}
    """Of every rank; the user's `serving.env` wins."""

    draft: Draft | None = None
    trouble: str | None = None
    """What somebody has seen go wrong with it on a Spark."""

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
    active: float | None = None
    """Used per token; None: not published."""


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

    base: str | None = None
    """Name or id of another entry: all that is not said here is as there. For fine-tunes of a known model."""

    task: Task | None = None
    """None: as its files say (plan/models.py)."""

    former: tuple[str, ...] = ()
    """Ids and names that it had before, or has elsewhere."""

    quantization: str | None = None
    weights_gb: float | None = None
    """What an engine loads, in 10^9 bytes."""

    disk_gb: float | None = None
    """What is downloaded, in 10^9 bytes, where it is more: tables that stay on the disk, or numbers that are loaded
    narrower."""

    min_sparks: int = 1
    """The fewest that somebody has said to serve it on."""

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

    @property
    def download_gb(self) -> float | None:
        """What the hub sends and the disk holds, in 10^9 bytes."""
        return self.disk_gb or self.weights_gb


ENGINES = ("vllm", "sglang", "trtllm")
OWN = {"id", "name", "former", "gated", "base"}
"""Keys that an entry does not take over from its `base`."""


@cache
def entries(own: str = "") -> tuple[Entry, ...]:
    """The catalog, with the entries of the user's file `own` before ours and in their place.

    Raises Refused with every mistake of that file.
    """
    ours = _read(FILE)
    if not own:
        return _checked(FILE, ours)
    path = Path(own).expanduser()
    try:
        theirs = _read(path)
    except OSError as error:
        raise Refused([Problem("catalog", f"{path}: {error.strerror}", "name a file on this machine")]) from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise Refused([Problem("catalog", f"{path} is no YAML with a list `models`", f"write it as {FILE}")]) from None
    made = _checked(path, theirs, ours)
    taken = {word for entry in made for word in (entry.id, entry.name)}
    return (*made, *(entry for entry in entries() if not {entry.id, entry.name} & taken))


def prompt(name: str) -> str:
    """Text of a prompt template beside models.yaml."""
    return (FILE.parent / name).read_text()


def _read(path: Path) -> list[Any]:
    # libyaml, where PyYAML was built with it, reads our file ten times as fast: every preview does.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[Any] = yaml.load(path.read_text(), Loader=loader)["models"]
    return list(found)


def _checked(path: Path, raw: Sequence[Any], more: Sequence[Any] = ()) -> tuple[Entry, ...]:
    """`raw` as entries; `more`: what they may name as their base beside each other."""
    made, problems = [], []
    for number, item in enumerate(raw):
        at = f"{path}: models[{number}]"
        try:
            made.append(Entry.model_validate(_inherited(item, [*raw, *more])))
        except ValidationError as error:
            problems += [
                Problem(
                    f"{at}.{'.'.join(map(str, detail['loc']))}",
                    detail["msg"][0].lower() + detail["msg"][1:],
                    f"write it as the entries in {FILE}",
                )
                for detail in error.errors()
            ]
        except LookupError as error:
            problems.append(Problem(f"{at}.base", str(error.args[0]), "name an entry that `./spark models` lists"))
    if problems:
        raise Refused(problems)
    return tuple(made)


def _inherited(item: Any, known: Sequence[Any], seen: tuple[str, ...] = ()) -> Any:
    """`item` with what its base says and it does not; engines' settings are merged key by key.

    Raises LookupError for a base that is not there, or that is its own.
    """
    if not isinstance(item, dict) or not isinstance(item.get("base"), str):
        return item
    base = item["base"]
    if base in seen:
        raise LookupError(f"{base} is its own base")
    found = next((one for one in known if one is not item and _called(one, base)), None)
    if found is None:
        raise LookupError(f"there is no entry {base}")
    below = {key: value for key, value in _inherited(found, known, (*seen, base)).items() if key not in OWN}
    engines = {
        engine: {**below[engine], **item[engine]}
        for engine in ENGINES
        if isinstance(below.get(engine), dict) and isinstance(item.get(engine), dict)
    }
    return {**below, **item, **engines}


def _called(item: Any, name: str) -> bool:
    return isinstance(item, dict) and name in (item.get("id"), item.get("name"), *(item.get("former") or ()))


def find(model: str, own: str = "") -> Entry | None:
    """By repository, short name or a former one; None: not in the catalog."""
    known = entries(own)
    exact = (entry for entry in known if model in (entry.id, entry.name))
    return next(exact, None) or next((entry for entry in known if model in entry.former), None)
