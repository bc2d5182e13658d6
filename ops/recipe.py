"""`./spark recipe import`: sparkrun's recipes (version 2) and eugr's, as entries of a catalog and settings of a stack.

A recipe is read and never run: what it would do beside serving a model (mods, hooks, builds) is named and left out.
Formats: spark-arena/sparkrun RECIPES.md, eugr/spark-vllm-docker recipes/README.md.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import yaml
from pydantic import ValidationError

from components import catalog, ports
from components.catalog import Entry
from ops import recipe_words
from ops.pulumi import CommandError
from ops.recipe_words import Command, NotRead

LARGEST = 1 << 20
"""Bytes of one recipe; those that are known have two thousand."""

TIMEOUT = 20
"""Seconds for one answer of the recipe's server."""


@dataclass
class Recipe:
    """What came of one recipe."""

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    """Of a catalog (components/catalog `Entry`)."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Path in the stack's configuration → value."""

    left: list[str] = field(default_factory=list)
    """What was not taken over, and why."""

    def served(self) -> dict[str, Any]:
        """The entry's settings for the recipe's engine."""
        engine: dict[str, Any] = self.entry.setdefault(str(self.settings["engine"]), {})
        return engine


OURS = "this program sets it for each Spark"
CODE = "code is never taken over"
LEFT = {
    "mods": f"patches of the engine: {CODE}; build an image with them (image.source build) where the model needs them",
    "build_args": "how eugr's scripts build the image: see image.source build",
    "pre_exec": f"a hook: {CODE}",
    "post_exec": f"a hook: {CODE}",
    "post_commands": f"a hook: {CODE}",
    "stop_after_post": "a stack serves until it is destroyed",
    "builder": "images are pulled, copied or built as the stack says (image)",
    "builder_config": "images are pulled, copied or built as the stack says (image)",
    "executor_config": "containers run as the stack says (containers), without privileges",
    "distribution_config": "image and weights are on every Spark",
    "runtime_config": "settings of sparkrun's own",
    "benchmark": "./spark bench measures",
}
"""Key → why nothing of it is taken."""

SILENT = {
    "recipe_version", "sparkrun_version", "name", "description", "model", "model_revision", "runtime",
    "runtime_version", "container", "defaults", "env", "command", "metadata", "mode", "min_nodes", "max_nodes",
    "cluster_only", "solo_only",
}  # fmt: skip
"""Keys that are taken, or that say nothing for a stack."""

IMAGES = {"vllm-node": "eugr/spark-vllm:latest", "vllm-node-b12x": "eugr/spark-vllm-b12x:latest"}
"""What eugr's scripts build, under the name by which its maker publishes it. Source: eugr/spark-vllm-docker README."""

COMMUNICATION = re.compile(r"(NCCL_(IB_|SOCKET|NET)|GLOO_|UCX_|OMPI_MCA|TP_SOCKET|MN_IF|RAY_)|VLLM_HOST_IP$|NODE_IP$")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)


def imported(text: str, name: str) -> Recipe:
    """One recipe. Raises CommandError where it is none, or is for an engine that there is not here.

    name   of its file, without the ending: the entry's name
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CommandError(f"{name} is no YAML: {str(error).splitlines()[0]}") from None
    if not is_recipe(raw):
        raise CommandError(f"{name} is no recipe: it has no `command`, and no `model` with `defaults` or `container`")
    recipe = Recipe(name)
    command = _command(raw, name)
    recipe.settings["engine"] = command.engine
    model = command.model or str(raw.get("model") or "")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise CommandError(
            f"{name}: {model or 'no model'} is no repository of the hub (ORG/NAME); GGUF is not served here"
        )
    recipe.entry |= {"id": model, "name": _slug(name)}
    recipe.left += [f"{key}: {LEFT.get(key, 'no key that is known')}" for key in raw if key not in SILENT and raw[key]]
    if command.rest:
        recipe.left.append(f"command, from its second on: {CODE} ({command.rest[:80]})")
    _about(recipe, raw)
    _image(recipe, raw)
    _environment(recipe, {**_mapping(raw, "env", name), **command.environment})
    for flag, values in command.options:
        _option(recipe, flag, values)
    _nodes(recipe, raw)
    _checked(recipe)
    return recipe


def is_recipe(raw: Any) -> bool:
    return isinstance(raw, dict) and bool(
        raw.get("command") or (raw.get("model") and (raw.keys() & {"defaults", "container"}))
    )


def _mapping(raw: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    found = raw.get(key) or {}
    if not isinstance(found, dict):
        raise CommandError(f"{name}: {key} is no mapping")
    return {str(inner): value for inner, value in found.items()}


def _command(raw: Mapping[str, Any], name: str) -> Command:
    defaults, runtime = _mapping(raw, "defaults", name), str(raw.get("runtime") or "")
    values = {**defaults, "model": raw.get("model")}
    if raw.get("command"):
        # sparkrun takes a recipe for one of version 2 unless it says otherwise, eugr's always say 1 or nothing.
        doubled = str(raw.get("recipe_version", "1" if "runtime" not in raw else "2")) == "1"
        try:
            text = recipe_words.filled(str(raw["command"]), values, doubled=doubled)
            return recipe_words.read(text, str(raw.get("model") or ""))
        except NotRead as error:
            raise CommandError(f"{name}: its command {error}") from None
    engine = {"": "vllm", "vllm-distributed": "vllm", "vllm-ray": "vllm", "eugr-vllm": "vllm"}.get(runtime, runtime)
    if engine not in ("vllm", "sglang", "trtllm"):
        raise CommandError(f"{name}: its runtime is {runtime}; there are vllm, sglang and trtllm here")
    hyphen = "_" if engine == "trtllm" else "-"
    options = tuple(
        (f"--{DEFAULTS[engine].get(key, key).replace('_', hyphen)}", () if value is True else (str(value),))
        for key, value in defaults.items()
        if value is not False and value is not None
    )
    return Command(engine, str(raw.get("model") or ""), options, {}, "")


DEFAULTS: dict[str, dict[str, str]] = {
    "vllm": {
        "tensor_parallel": "tensor_parallel_size", "pipeline_parallel": "pipeline_parallel_size",
        "data_parallel": "data_parallel_size",
    },
    "sglang": {
        "tensor_parallel": "tp_size", "pipeline_parallel": "pp_size", "gpu_memory_utilization": "mem_fraction_static",
        "max_model_len": "context_length",
    },
    "trtllm": {
        "tensor_parallel": "tp_size", "pipeline_parallel": "pp_size", "max_model_len": "max_seq_len",
        "gpu_memory_utilization": "kv_cache_free_gpu_memory_fraction",
    },
}  # fmt: skip
"""Key of sparkrun's defaults → the engine's option, where it is another word. Source: RECIPES.md."""

SPLIT = {
    "--tensor-parallel-size": "tensor", "--tp-size": "tensor", "--tp": "tensor", "--tp_size": "tensor",
    "--pipeline-parallel-size": "pipeline", "--pp-size": "pipeline", "--pp": "pipeline", "--pp_size": "pipeline",
    "--data-parallel-size": "data",
}  # fmt: skip

FIELDS = {
    "--max-model-len": "max_model_len", "--context-length": "max_model_len", "--max_seq_len": "max_model_len",
    "--gpu-memory-utilization": "gpu_memory_utilization", "--mem-fraction-static": "gpu_memory_utilization",
    "--kv_cache_free_gpu_memory_fraction": "gpu_memory_utilization",
    "--free_gpu_memory_fraction": "gpu_memory_utilization",
    "--trust-remote-code": "trust_remote_code", "--trust_remote_code": "trust_remote_code",
    "--enable-expert-parallel": "expert_parallel",
    "--reasoning-parser": "reasoning_parser", "--reasoning_parser": "reasoning_parser",
    "--tool-call-parser": "tool_call_parser", "--tool_parser": "tool_call_parser",
    "--max_num_tokens": "max_num_tokens", "--max_batch_size": "max_batch_size", "--backend": "backend",
}  # fmt: skip
"""Option → field of the catalog's `Served`. --load-format too, for vLLM."""

DROPPED = {
    "--enable-auto-tool-choice": "", "--model": "", "--model-path": "", "--runner": "",
    "--nnodes": "", "--node-rank": "", "--master-addr": "", "--master-port": "", "--headless": "",
    "--dist-init-addr": "",
    "--chat-template": "a file of the recipe's image or mods",
    "--reasoning-parser-plugin": CODE, "--tool-parser-plugin": CODE,
    "--api-key": "a secret: pulumi config set --secret apiKey …",
    "--extra_llm_api_options": "a file of the recipe's", "--config": "a file of the recipe's",
}  # fmt: skip
"""Option → why it is not taken; '': this program says it itself."""


def _option(recipe: Recipe, flag: str, values: tuple[str, ...]) -> None:
    served, engine = recipe.served(), recipe.settings["engine"]
    value = values[0] if values else None
    name = "load_format" if (flag, engine) == ("--load-format", "vllm") else FIELDS.get(flag)
    if flag in DROPPED:
        recipe.left += [f"{flag}: {DROPPED[flag]}"] if DROPPED[flag] else []
    elif flag in SPLIT:
        recipe.settings[SPLIT[flag]] = _number(recipe, flag, value)
    elif flag in ("--host", "--port", "--served-model-name"):
        _endpoint(recipe, flag, value or "")
    elif flag == "--distributed-executor-backend":
        recipe.settings |= {"serving.executor": "ray"} if value == "ray" else {}
    elif flag.startswith("--speculative"):
        _draft(recipe, flag, value)
    elif values[1:]:
        served.setdefault("args", []).extend((flag, *values))
    elif name and not (name == "max_model_len" and not str(value).isdigit()):
        served[name] = True if value is None else _plain(value)
    else:
        served.setdefault("args", []).append(flag if value is None else f"{flag}={value}")


def _plain(text: str) -> Any:
    """Numbers and truth values as such, all else as it stands."""
    try:
        found = json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text
    return found if isinstance(found, bool | int | float) else text


def _number(recipe: Recipe, flag: str, value: str | None) -> int:
    if value is None or not value.isdigit() or not int(value):
        raise CommandError(f"{recipe.name}: {flag} is {value}, no number of GPUs")
    return int(value)


def _endpoint(recipe: Recipe, flag: str, value: str) -> None:
    usual = {"vllm": ports.VLLM, "sglang": ports.SGLANG, "trtllm": ports.TRTLLM}[recipe.settings["engine"]]
    if flag == "--port" and value.isdigit() and int(value) != usual:
        recipe.settings["serving.port"] = int(value)
    elif flag == "--host" and value != "0.0.0.0":
        recipe.settings["serving.host"] = value
    elif flag == "--served-model-name":
        recipe.settings["serving.servedModelName"] = value


METHODS = {"EAGLE": "eagle", "EAGLE3": "eagle3", "NEXTN": "mtp", "STANDALONE": "draft_model", "NGRAM": "ngram"}
"""SGLang's algorithms; the others have their names in small letters here."""


def _draft(recipe: Recipe, flag: str, value: str | None) -> None:
    """Of vLLM's --speculative-config, whole or by its keys, or SGLang's options."""
    draft = recipe.served().setdefault("draft", {})
    if flag == "--speculative-config":
        try:
            draft |= json.loads(value or "")
        except (ValueError, TypeError):
            recipe.left.append(f"{flag}: {value} is no JSON object")
    elif flag.startswith("--speculative-config."):
        draft[flag.partition(".")[2].replace("-", "_")] = _plain(value or "true")
    elif flag == "--speculative-algorithm":
        draft["method"] = METHODS.get(str(value), str(value).lower())
    elif flag == "--speculative-num-draft-tokens" and str(value).isdigit():
        # SGLang counts the token that the model itself adds.
        draft["num_speculative_tokens"] = int(str(value)) - 1
    elif flag in ("--speculative-draft-model-path", "--speculative-draft-model"):
        draft["model"] = value
    elif flag not in ("--speculative-num-steps", "--speculative-eagle-topk"):
        recipe.served().setdefault("args", []).append(flag if value is None else f"{flag}={value}")


def _about(recipe: Recipe, raw: Mapping[str, Any]) -> None:
    metadata = _mapping(raw, "metadata", recipe.name)
    said = metadata.get("description") or raw.get("description")
    recipe.entry["note"] = f"Imported from a recipe. {str(said).strip()}" if said else "Imported from a recipe."
    if isinstance(metadata.get("model_vram"), int | float):
        recipe.entry["weights_gb"] = float(metadata["model_vram"])
    if metadata.get("quantization"):
        recipe.entry["quantization"] = str(metadata["quantization"])
    if raw.get("model_revision"):
        recipe.settings["weights.revision"] = str(raw["model_revision"])


def _image(recipe: Recipe, raw: Mapping[str, Any]) -> None:
    container = str(raw.get("container") or "")
    known = IMAGES.get(container, container)
    if re.fullmatch(r"[\w.-]+(:\d+)?/[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", known):
        recipe.served()["image"] = known
        if known != container:
            recipe.left.append(f"container: {container} is built on the Spark; {known} in its place, pin it by digest")
    elif container:
        recipe.left.append(f"container: {container} is built on the Spark; the engine's default image in its place")


def _environment(recipe: Recipe, variables: Mapping[str, Any]) -> None:
    taken = {}
    for name, value in variables.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if COMMUNICATION.match(name):
            recipe.left.append(f"env {name}: {OURS}")
        elif SECRET.search(name):
            recipe.left.append(f"env {name}: a secret; pulumi config set --secret --path serving.env.{name} …")
        elif "$" in text:
            recipe.left.append(f"env {name}: {text} stands for something on its author's machine")
        else:
            taken[name] = text
    if taken:
        recipe.served()["env"] = taken


def _nodes(recipe: Recipe, raw: Mapping[str, Any]) -> None:
    """How many Sparks it is for: GPUs of its split, else as it says."""
    parts = {key: recipe.settings.pop(key, 1) for key in ("tensor", "pipeline", "data")}
    gpus = parts["tensor"] * parts["pipeline"] * parts["data"]
    least = raw.get("min_nodes") or (2 if raw.get("cluster_only") else 1)
    recipe.entry["min_sparks"] = max(gpus, least if isinstance(least, int) else 1)
    # Tensor parallel over all Sparks is what a stack does by itself.
    if parts["pipeline"] > 1 or parts["data"] > 1:
        for key, number in parts.items():
            recipe.settings |= {f"serving.{key}Parallel": number} if number > 1 or key != "data" else {}
    if raw.get("solo_only") or raw.get("max_nodes") == 1:
        recipe.left.append("max_nodes: made for one Spark; a stack of several divides the model")


UNSAID: dict[str, Any] = {"args": [], "env": {}}
LASTING = {"min_version", "hf_overrides", "chat_template"}
"""Fields of `Served` that are the model's, whoever serves it."""


def _checked(recipe: Recipe) -> None:
    """Put into the catalog's form. Raises CommandError where that refuses it."""
    served = recipe.served()
    if raw := served.pop("draft", None):
        served["draft"] = {
            "method": raw.pop("method", "draft_model" if raw.get("model") else "mtp"),
            "tokens": raw.pop("num_speculative_tokens", 1),
            **({"model": raw.pop("model")} if raw.get("model") else {}),
            **({"options": raw} if raw else {}),
        }
    if known := catalog.find(recipe.entry["id"]):
        recipe.entry["base"] = known.name
        # What the recipe does not say is the engine's default, and not what another recipe says.
        said = known.served(recipe.settings["engine"]).model_dump(exclude_defaults=True, mode="json")
        served |= {key: UNSAID.get(key) for key in said if key not in served and key not in LASTING}
    if not served:
        del recipe.entry[recipe.settings["engine"]]
    try:
        Entry.model_validate(recipe.entry)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors())
        raise CommandError(f"{recipe.name}: {wrong}") from None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def found(source: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each recipe at a file, an https address or below a directory. Raises CommandError."""
    if re.match(r"[a-z]+://", source):
        yield Path(urlsplit(source).path).stem, _fetched(source)
        return
    path = Path(source).expanduser()
    files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
    if not files:
        raise CommandError(f"there is no recipe below {path}: none of its files ends in .yaml")
    for file in files:
        try:
            if file.stat().st_size > LARGEST:
                raise CommandError(f"{file} is too large for a recipe")
            yield file.stem, file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file}: {error}") from None


def _fetched(address: str) -> str:
    """Text at an https address; GitHub's page of a file stands for the file."""
    if not address.startswith("https://"):
        raise CommandError(f"{address}: recipes are fetched by https alone")
    raw = re.sub(r"^https://github\.com/([^/]+/[^/]+)/blob/", r"https://raw.githubusercontent.com/\1/", address)
    try:
        with requests.get(raw, timeout=TIMEOUT, stream=True, allow_redirects=False) as answer:
            if answer.status_code != requests.codes.ok:
                raise CommandError(f"{address} answers {answer.status_code}")
            content: bytes = answer.raw.read(LARGEST + 1, decode_content=True)
    except requests.RequestException as error:
        raise CommandError(f"{address}: {type(error).__name__}") from None
    if len(content) > LARGEST:
        raise CommandError(f"{address} is too large for a recipe")
    return content.decode(errors="replace")


def show(source: str, into: str | None, name: str | None) -> None:
    """Print what each recipe becomes; with `into`, write its entry into that catalog."""
    several = Path(source).expanduser().is_dir()
    taken, skipped = [], []
    for called, text in found(source):
        try:
            taken.append(imported(text, name if name and not several else called))
        except CommandError as error:
            if not several:
                raise
            skipped.append(str(error))
    for recipe in taken:
        print(yaml.safe_dump([recipe.entry], sort_keys=False, width=120, allow_unicode=True), end="")
        print(_advice(recipe, into or "mine.yaml"))
    for words in skipped:
        print(f"# left out: {words}")
    if not taken:
        raise CommandError(f"{source}: nothing could be taken over")
    if into:
        write(Path(into).expanduser(), taken)


def _advice(recipe: Recipe, into: str) -> str:
    """What to do with it. A recipe's words are shown on one line each, and quoted where a shell will read them."""
    served = recipe.entry.get(recipe.settings["engine"]) or {}
    trusted = [f"the image {served['image']}"] if served.get("image") else []
    trusted += ["the code in the model's repository (trust_remote_code)"] if served.get("trust_remote_code") else []
    lines = [f"# not taken over: {_line(what)}" for what in recipe.left]
    lines += [f"# it trusts {' and '.join(trusted)}"] if trusted else []
    count = recipe.entry["min_sparks"]
    lines.append(f"# for {count} Spark{'s' * (count > 1)} or more:")
    wanted = {"catalog": into, "model": recipe.entry["name"], **recipe.settings}
    for key, value in wanted.items():
        lines.append(f"pulumi config set {'--path ' if '.' in key else ''}{key} {shlex.quote(_line(str(value)))}")
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def write(path: Path, recipes: list[Recipe]) -> None:
    """Add the entries to the user's catalog, in the place of those with the same name. Comments there are lost."""
    try:
        there = (yaml.safe_load(path.read_text()) or {}).get("models", []) if path.exists() else []
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise CommandError(f"{path} is no catalog: {error}") from None
    new = {recipe.entry["name"]: recipe.entry for recipe in recipes}
    models = [entry for entry in there if entry.get("name") not in new] + list(new.values())
    path.write_text(yaml.safe_dump({"models": models}, sort_keys=False, width=120, allow_unicode=True))
    print(f"{path} has {', '.join(new)}")
