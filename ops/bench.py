"""`./spark bench`: how fast the endpoint is, by one client for all engines.

The client is NVIDIA's AIPerf (Apache-2.0), in an environment of its own (`.venv-bench`, from requirements-bench.txt
with hashes): it is large, and nothing else needs it. Prompts are sized as the server counts tokens (`Sizer`), so that
no tokenizer has to be fetched and gated models work too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
import yaml
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from ops import look
from ops.check import Api, Wrong, api_of, task_of
from ops.project import short
from ops.pulumi import ROOT, CommandError
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)

RESULTS = ROOT / "benchmark_results"
ENVIRONMENT = ROOT / ".venv-bench"
LOCK = ROOT / "requirements-bench.txt"

PYTHONS = ((3, 11), (3, 13))
"""Those that AIPerf 0.13 is made for, the first and the last."""

WARM_UP = 2
"""Requests that don't count: the first ones compile kernels and fill caches."""

LIMIT = 3600
"""Seconds for one run."""


@dataclass(frozen=True)
class Profile:
    """Sizes as of the reference projects' tables. Sources: sglang-dgx-spark and trt-dgx-spark, benchmark_current.sh."""

    name: str
    prompts: int
    input: int
    """Tokens of each prompt."""

    output: int
    """Tokens of each answer."""

    rate: float | None = None
    """Requests per second, at random times; None: all as soon as `concurrency` lets them."""

    concurrency: int | None = None
    """Requests at a time, at most. None: all."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("quick", 10, 128, 128),
        Profile("short", 50, 256, 256),
        Profile("medium", 100, 512, 512),
        Profile("long", 200, 1024, 1024),
        Profile("throughput", 500, 256, 256, concurrency=64),
        Profile("latency", 100, 128, 128, rate=2),
        Profile("stress", 1000, 512, 512, concurrency=128),
    )
}


def chosen(name: str | None, **sizes: float | None) -> Profile:
    """A profile by name; with sizes of your own, a custom one over `quick` or the named one."""
    if name is not None and name not in PROFILES:
        raise CommandError(f"there is no profile {name}; there is {', '.join(PROFILES)}")
    own = {key: value for key, value in sizes.items() if value is not None}
    base = PROFILES[name or "quick"]
    return replace(base, name="custom", **own) if own else base  # type: ignore[arg-type]  # typer has checked them


@dataclass(frozen=True)
class Spread:
    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Result:
    """Milliseconds for latencies, tokens and requests per second for rates."""

    timestamp: str
    stack: str
    configuration: str
    """Hash of all that makes the endpoint what it is: figures of the same one can be compared."""

    model: str
    engine: str
    sparks: int
    profile: Profile
    requests: int
    failed: int
    duration_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    input_tokens: float
    """Per request, as the server counts; of the chat template too."""

    output_tokens: float
    ttft_ms: Spread
    """Time to the first token, streamed."""

    itl_ms: Spread
    """Between tokens of one answer, after the first (time per output token)."""

    e2e_ms: Spread
    startup_s: float | None = None
    """From the server's start to its first answer, where an `up` of ours has seen it."""


def configuration(outputs: Mapping[str, Any]) -> str:
    """Hash of model, image and each rank's command line, environment and place."""
    about = {key: outputs.get(key) for key in ("revision", "image", "configuration")}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


VOCABULARY = """river stone light cable window paper garden music winter number engine copper silver market bridge
letter morning question answer picture village teacher doctor summer kitchen island forest mountain travel history"""


class Sizer:
    """How many words make how many tokens for this model: asked of the server, whose count is what matters."""

    def __init__(self, api: Api) -> None:
        short, long = 64, 320
        few, many = self._count(api, short), self._count(api, long)
        self.per_word = (many - few) / (long - short)
        self.fixed = few - short * self.per_word
        """Of the chat template."""

    def words(self, tokens: int) -> int:
        return max(1, round((tokens - self.fixed) / self.per_word))

    @staticmethod
    def _count(api: Api, words: int) -> int:
        messages = [{"role": "user", "content": prompt(words, seed=0)}]
        return int(api.post("chat/completions", messages=messages, max_tokens=1).json()["usage"]["prompt_tokens"])


def prompt(words: int, seed: int) -> str:
    """The same text for the same seed, and no two with a common beginning: a cached prefix would be measured."""
    return " ".join(random.Random(seed).choices(VOCABULARY.split(), k=words))


def run(cluster: Stack, profile: Profile) -> Result:
    """One run, kept below benchmark_results/. Raises CommandError where nothing could be measured."""
    api = api_of(cluster)
    if task_of(cluster) != "generate":
        model = cluster.settings.model
        raise CommandError(f"{model} does not chat, and chats are what is measured; `./spark check` asks it")
    try:
        sizer = Sizer(api)
    except (Wrong, requests.RequestException) as error:
        raise CommandError(f"{api.base} does not answer: {error}; `./spark check` asks more") from None
    began = datetime.now(timezone.utc)
    folder = RESULTS / short(cluster.stack) / f"{began:%Y%m%d_%H%M%S}_{profile.name}"
    folder.mkdir(parents=True)
    raw = measure(api, profile, sizer.words(profile.input), folder)
    result = summary(raw, cluster, cluster.outputs, profile, f"{began:%Y-%m-%dT%H:%M:%SZ}")
    (folder / "result.json").write_text(json.dumps(asdict(result), indent=1))
    append(RESULTS / short(cluster.stack) / "results.csv", result)
    return result


def measure(api: Api, profile: Profile, words: int, folder: Path) -> dict[str, Any]:
    """AIPerf's own export. Its configuration holds the key, so it is a file that nobody else reads, and goes."""
    aiperf = environment() / "bin" / "aiperf"
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch, "prompts.jsonl")
        texts = (json.dumps({"text": prompt(words, seed)}) for seed in range(1, profile.prompts + 1))
        prompts.write_text("\n".join(texts) + "\n")
        config = Path(scratch, "aiperf.yaml")
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(order(api, profile, prompts, tokenizer(Path(scratch)), folder)))
        argv = [str(aiperf), "profile", "--config", str(config), "--ui", "none"]
        with open(folder / "aiperf.log", "w") as log:
            try:
                done = subprocess.run(argv, stdout=log, stderr=log, timeout=LIMIT)
            except subprocess.TimeoutExpired:
                raise CommandError(f"not done within {LIMIT} s; {folder / 'aiperf.log'}") from None
    export = folder / "profile_export_aiperf.json"
    if not export.exists():
        raise CommandError(f"no request was answered (exit code {done.returncode}): see {folder / 'aiperf.log'}")
    found: dict[str, Any] = json.loads(export.read_text())
    return found


def order(api: Api, profile: Profile, prompts: Path, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """AIPerf's configuration. Source: aiperf/config of 0.13; its exports show the same."""
    limit = min(profile.concurrency or profile.prompts, profile.prompts)
    rate = {"type": "poisson", "rate": profile.rate} if profile.rate else {"type": "concurrency"}
    endpoint = {
        "urls": [api.base.removesuffix("/v1")],
        "type": "chat",
        "streaming": True,
        "use_server_token_count": True,
        # Answers of one length, whatever the model would rather say.
        "extra": {"max_tokens": profile.output, "ignore_eos": True},
    }
    key = api.headers.get("Authorization", "").removeprefix("Bearer ")
    warm_up = {"name": "warmup", "kind": "warmup", "type": "concurrency", "exclude_from_results": True}
    return {
        "models": {"items": [{"name": api.model}]},
        "endpoint": {**endpoint, **({"api_key": key} if key else {})},
        "datasets": [
            {"name": "main", "type": "file", "path": str(prompts), "format": "single_turn", "entries": profile.prompts}
        ],
        "phases": [
            {**warm_up, "requests": WARM_UP, "concurrency": 1},
            {"name": "profiling", "kind": "profiling", **rate, "requests": profile.prompts, "concurrency": limit},
        ],
        "artifacts": {"dir": str(folder)},
        "tokenizer": {"name": str(tokenizer)},
    }


def tokenizer(scratch: Path) -> Path:
    """AIPerf loads one in any case; with the server's own counts it encodes nothing."""
    folder = scratch / "tokenizer"
    folder.mkdir()
    model = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    content = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    names = {f"{kind}_token": "[UNK]" for kind in ("unk", "bos", "eos")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return folder


def environment() -> Path:
    """AIPerf's own virtual environment, made on first use."""
    mark = ENVIRONMENT / "installed"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return ENVIRONMENT
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise CommandError(f"AIPerf has no Python {sys.version_info.major}.{sys.version_info.minor}: 3.11 to 3.13")
    print("spark: installing AIPerf (1 GB, the first time only)", file=sys.stderr)
    uv, python = str(Path(sys.executable).parent / "uv"), str(ENVIRONMENT / "bin" / "python")
    for argv in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "--requirement", str(LOCK)],
    ):
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise CommandError(f"AIPerf can't be installed:\n{(done.stderr or done.stdout).strip()}")
    mark.write_text(wanted)
    return ENVIRONMENT


def summary(raw: Mapping[str, Any], cluster: Stack, outputs: Mapping[str, Any], profile: Profile, when: str) -> Result:
    def value(metric: str) -> float:
        return float(raw.get(metric, {}).get("avg", 0.0))

    def spread(metric: str) -> Spread:
        found = raw.get(metric, {})
        return Spread(*(float(found.get(key, 0.0)) for key in ("avg", "p50", "p90", "p99")))

    answered = int(value("request_count"))
    return Result(
        timestamp=when,
        stack=cluster.identity,
        configuration=configuration(outputs),
        model=outputs["model"],
        engine=outputs["engine"],
        sparks=len(cluster.settings.nodes),
        profile=profile,
        requests=answered,
        failed=profile.prompts - answered,
        duration_s=value("benchmark_duration"),
        output_tokens_per_s=value("output_token_throughput"),
        total_tokens_per_s=value("total_token_throughput"),
        requests_per_s=value("request_throughput"),
        input_tokens=value("input_sequence_length"),
        output_tokens=value("output_sequence_length"),
        ttft_ms=spread("time_to_first_token"),
        itl_ms=spread("inter_token_latency"),
        e2e_ms=spread("request_latency"),
        startup_s=startup(cluster),
    )


def startup(cluster: Stack) -> float | None:
    """Of the server as it runs."""
    found = look.startup(cluster)
    return float(found["answer"]) if found else None


def flat(result: Result) -> dict[str, Any]:
    """One row: `ttft_ms.p99` and the like."""
    row: dict[str, Any] = {}
    for key, value in asdict(result).items():
        if isinstance(value, dict):
            row |= {f"{key}.{inner}": one for inner, one in value.items()}
        else:
            row[key] = value
    return row


def append(path: Path, result: Result) -> None:
    """To a table that an earlier version of this program may have begun, with fewer columns."""
    row, rows = flat(result), []
    if path.exists():
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream))
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, row, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, row])


def former(result: Result) -> Result | None:
    """The last run before this one of the same configuration and profile."""
    found = []
    for path in sorted((RESULTS / short(result.stack)).glob("*/result.json")):
        one = TypeAdapter(Result).validate_json(path.read_text())
        same = (one.configuration, one.profile) == (result.configuration, result.profile)
        if same and one.timestamp < result.timestamp:
            found.append(one)
    return found[-1] if found else None


SHOWN = (
    ("output tokens/s", "output_tokens_per_s"),
    ("total tokens/s", "total_tokens_per_s"),
    ("requests/s", "requests_per_s"),
    ("first token, ms (mean)", "ttft_ms.mean"),
    ("first token, ms (p99)", "ttft_ms.p99"),
    ("between tokens, ms (mean)", "itl_ms.mean"),
    ("whole answer, ms (p50)", "e2e_ms.p50"),
    ("whole answer, ms (p99)", "e2e_ms.p99"),
)


def show(result: Result, before: Result | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"result": asdict(result), "former": asdict(before) if before else None}, indent=1))
        return
    profile, now, then = result.profile, flat(result), flat(before) if before else {}
    at_once = profile.concurrency or profile.prompts
    arrivals = f"{profile.rate:g} a second" if profile.rate else f"{at_once} at a time"
    title = f"{result.model} on {result.engine}, {result.sparks} Spark{'s' * (result.sparks > 1)}"
    table = Table(title=title, title_justify="left")
    for heading in ("", "now", *(["last time", "change"] if before else [])):
        table.add_column(heading, justify="right" if heading else "left")
    for name, key in SHOWN:
        cells = [f"{now[key]:,.1f}"]
        if before:
            change = f"{100 * (now[key] / then[key] - 1):+.1f} %" if then[key] else "new"
            cells += [f"{then[key]:,.1f}", change]
        table.add_row(name, *cells)
    console.print(table)
    console.print(
        f"{profile.name}: {result.requests} answers, {result.failed} failed, {arrivals}; "
        f"{result.input_tokens:.0f} tokens in, {result.output_tokens:.0f} out; {result.duration_s:.1f} s"
    )
    if result.startup_s is not None:
        console.print(f"The server's start took {result.startup_s:.0f} s to its first answer")
    if before is None:
        console.print("The first run of this configuration and profile: the next one is compared with it.")
