"""Everything that can be refused before anything is touched, one generator per subject. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from components import catalog
from components import ports as table
from components.facts.hub import Model
from components.facts.spark import NodeFacts
from components.plan import known
from components.plan.division import doubtful, layouts, obstacles
from components.plan.engines import Context, flags, trtllm
from components.plan.engines.common import more_arguments, on_ray, split, wanted
from components.plan.engines.registry import api_port, image_name
from components.plan.models import encoding_file, is_directory, needs_encodings, repository
from components.plan.values import Identity
from components.problems import Problem, Severity
from components.settings import Settings

RESERVE = 5 * 10**9
"""Bytes that stay free on the disk beside the weights; arbitrary, enough for logs and image layers."""


def holders(identity: Identity, facts: Mapping[str, NodeFacts]) -> dict[str, str]:
    """Node → another stack that holds it."""
    return {name: node.lease.stack for name, node in facts.items() if node.lease and node.lease.stack != identity.full}


def leases(settings: Settings, identity: Identity, facts: Mapping[str, NodeFacts]) -> Iterator[Problem]:
    """One stack owns a Spark's GPU at a time."""
    for name, stack in holders(identity, facts).items():
        if not settings.takeover:
            yield Problem(
                name,
                f"is held by the stack {stack}",
                "destroy that stack first, since two engines do not fit into one GPU, or let this one stop it: "
                "pulumi config set takeover true",
            )


def takeovers(identity: Identity, facts: Mapping[str, NodeFacts]) -> Iterator[Problem]:
    for name, stack in holders(identity, facts).items():
        taken = f"will be taken over from the stack {stack} when image and weights are in place"
        yield Problem(name, taken, "", Severity.NOTE)


def addresses(settings: Settings) -> Iterator[Problem]:
    """Where the URLs that people get lead to."""
    where = settings.head.address or settings.head.host
    if ":" in where and settings.serving.host == "0.0.0.0":
        yield Problem(
            "nodes[0].address",
            f"{where} is IPv6, where the API does not listen",
            "an IPv4 address of the head, or a name that has one",
            Severity.WARN,
        )


def machines(settings: Settings, facts: Mapping[str, NodeFacts]) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for node in settings.nodes:
        machine = facts[node.name].machine_id
        if machine and machine in owners:
            yield Problem(node.name, f"is the same machine as {owners[machine]}", "correct nodes[].host")
        owners.setdefault(machine, node.name)


def parallelism(settings: Settings, facts: Mapping[str, NodeFacts], model: Model) -> Iterator[Problem]:
    tensor, pipeline = split(settings, model.geometry)
    gpus = sum(len(node.gpus) for node in facts.values())
    copies = settings.serving.data_parallel
    if copies > 1 and settings.engine != "vllm":
        yield Problem("serving.dataParallel", f"is for vllm, not {settings.engine}", "remove it")
    elif copies > 1 and settings.serving.executor == "mp" and tensor * pipeline > 1:
        yield Problem(
            "serving.dataParallel",
            "copies that span several Sparks need Ray",
            "pulumi config set --path serving.executor ray, or as many copies as there are Sparks",
        )
    if tensor * pipeline * copies != gpus:
        each = f" × data parallel {copies}" if copies > 1 else ""
        yield Problem(
            "serving.tensorParallel",
            f"tensor parallel {tensor} × pipeline parallel {pipeline}{each} needs {tensor * pipeline * copies} GPUs, "
            f"and {len(facts)} Spark{'s have' if len(facts) > 1 else ' has'} {gpus}",
            "remove both keys and they are worked out, or change the list of nodes",
        )
        return
    possible = layouts(model.geometry, gpus // copies, settings.engine)
    if (tensor, pipeline) in possible:
        return
    working = " or ".join(f"tensorParallel {t} with pipelineParallel {p}" for t, p in possible)
    for obstacle in obstacles(model.geometry, tensor, settings.engine):
        yield Problem(
            "serving.tensorParallel",
            f"{model.repo} has {obstacle}",
            f"remove tensorParallel and pipelineParallel, or set {working}; where your image can do it nevertheless, "
            "serving.checkFit false goes on",
            Severity.REFUSE if settings.serving.check_fit else Severity.WARN,
        )


def experts(context: Context) -> Iterator[Problem]:
    """Whether the model's experts can be divided as wanted, and its layers otherwise."""
    settings, geometry, repo = context.settings, context.model.geometry, context.model.repo
    tensor, _ = split(settings, geometry)
    by_experts = bool(wanted(settings, context.known).expert_parallel)
    off = "pulumi config set --path serving.expertParallel false"
    if settings.serving.expert_parallel and geometry.layers and not geometry.experts:
        yield Problem("serving.expertParallel", f"{repo} has no experts", "remove it")
    elif by_experts and settings.engine != "vllm" and geometry.experts % tensor:
        wrong = f"{repo} has {geometry.experts} experts, and {settings.engine} gives each of {tensor} Sparks as many"
        yield Problem("serving.expertParallel", wrong, off)
    for doubt in doubtful(geometry, tensor, expert_parallel=by_experts):
        fix = "where the engine ends over it: pulumi config set --path serving.pipelineParallel 2 (or more)"
        if geometry.experts:
            fix += ", or serving.expertParallel true"
        yield Problem("serving.tensorParallel", f"{repo} has {doubt}", fix, Severity.WARN)


LONGER = {
    "vllm": ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", ("--hf-overrides", "--rope-scaling", "--hf-config-path")),
    "sglang": ("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", ("--json-model-override-args",)),
    "trtllm": ("TLLM_ALLOW_LONG_MAX_MODEL_LEN", ()),
}
"""Engine → (variable that allows a longer context than config.json names, options that may change what it names).
Sources: vLLM, _get_and_verify_max_len; SGLang, ModelConfig; TensorRT-LLM, PyTorchModelEngine._init_max_seq_len."""


def context_length(context: Context) -> Iterator[Problem]:
    settings, model = context.settings, context.model
    longest, asked = model.geometry.longest, settings.serving.max_model_len
    if not asked or longest is None or asked <= longest:
        return
    variable, options = LONGER[settings.engine]
    changed = bool({*flags.given(more_arguments(context))} & {*options} or context.known.hf_overrides)
    given_env = {**context.known.env, **settings.serving.env}
    allowed = given_env.get(variable, "").lower() in ("1", "true", "yes", "y")
    fix = f"{longest} or less"
    yield Problem(
        "serving.maxModelLen",
        f"{asked} is more than the {longest} tokens that {model.repo} was made for",
        fix
        if changed or allowed
        else f"{fix}, or pulumi config set --path serving.env.{variable} 1 if you know better",
        Severity.WARN if changed or allowed else Severity.REFUSE,
    )


def disk(facts: Mapping[str, NodeFacts], missing: Mapping[str, Sequence[Model]]) -> Iterator[Problem]:
    """`missing`: node → models whose weights are not complete there yet."""
    for name, node in facts.items():
        needed = sum(_to_come(model, node) for model in missing[name]) + RESERVE
        if missing[name] and node.cache.free < needed:
            sizes = ", ".join(f"{model.repo}: {gigabytes(model.size)}" for model in missing[name])
            yield Problem(
                name,
                f"disk too small for the weights: {node.cache.path} has {gigabytes(node.cache.free)} free, "
                f"{gigabytes(needed)} needed ({sizes})",
                "free space there (./spark prune), or put the cache elsewhere with weights.cache",
            )


def _to_come(model: Model, node: NodeFacts) -> int:
    """Bytes of this commit that the Spark lacks; another commit's files in the cache are no help."""
    held = node.cache.held.get(model.repo, {})
    return sum(max(0, file.size - held.get(file.sha256 or "", 0)) for file in model.files)


def vocabularies(context: Context) -> Iterator[Problem]:
    """Offline, what a model needs beside its weights must be on each Spark that can't copy it from another one."""
    settings, weights = context.settings, context.settings.weights
    needing = [one for one in (context.model, context.draft_model) if one and needs_encodings(one)]
    if not (weights.offline and needing):
        return
    # The key for copies of a directory reads nothing else (steps.authorize).
    own = settings.nodes if context.model.path and not weights.shared else (settings.head,)
    for node in own:
        there = context.facts[node.name]
        for name, encoding in sorted(weights.encodings.items()):
            found = there.encodings.get(encoding_file(name))
            if found != encoding.sha256:
                yield Problem(
                    "weights.offline",
                    f"{node.name} {'has a damaged' if found else 'lacks'} {there.cache.path}/{encoding_file(name)}, "
                    f"which {needing[0].repo} needs beside its weights",
                    f"put the file of {encoding.url} there (sha256 {encoding.sha256})",
                )


def staging(settings: Settings) -> Iterator[Problem]:
    """What can't be staged, or not beside the model that is served."""
    for number, model in enumerate(settings.weights.stage):
        if repository(settings, model).startswith("/"):
            yield Problem(f"weights.stage[{number}]", "a directory needs no staging", "remove it")
    if settings.weights.stage and settings.weights.offline:
        yield Problem("weights.stage", "can't be fetched offline", "remove it, or weights.offline")
    elif settings.weights.stage and is_directory(settings) and len(settings.nodes) > 1:
        yield Problem(
            "weights.stage",
            "goes into the cache, and a copy may read one directory of another Spark: that of the model served",
            "remove it, or move that model into the cache",
        )


def gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def used_ports(settings: Settings) -> Iterator[tuple[str, int]]:
    """(config key or '', TCP port) of everything that will listen on the head."""
    several = len(settings.nodes) > 1
    yield "serving.port", api_port(settings)
    if settings.monitoring:
        yield "beside.grafanaPort", settings.beside.grafana_port
        yield "", table.PROMETHEUS
        yield "", table.NODE_EXPORTER
        yield "", table.GPU_EXPORTER
    if settings.gateway:
        yield "beside.gatewayPort", settings.beside.gateway_port
    if settings.chat:
        yield "beside.chatPort", settings.beside.chat_port
    if on_ray(settings):
        yield "ray.port", settings.ray.port
        if settings.ray.dashboard:
            yield "ray.dashboardPort", settings.ray.dashboard_port
        yield from (("", port) for port in table.RAY_AGENTS)
    elif several:
        yield "", table.RANKS
        if settings.engine != "trtllm":
            yield "", table.SGLANG_RENDEZVOUS if settings.engine == "sglang" else table.VLLM_RENDEZVOUS


def beside(settings: Settings) -> Iterator[Problem]:
    if settings.gateway and not settings.gateway_keys:
        yield Problem(
            "gatewayKeys",
            "is empty, so nobody could use the gateway",
            "pulumi config set --secret --path gatewayKeys.NAME sk-…, one for each who may",
        )
    short = sorted(name for name, key in settings.gateway_keys.items() if len(key.get_secret_value()) < SHORTEST_KEY)
    if short:
        yield Problem("gatewayKeys", f"too short to be a secret: {', '.join(short)}", "openssl rand -hex 24 makes one")


SHORTEST_KEY = 16
"""Characters."""


def on_swarm(settings: Settings) -> bool:
    return settings.engine == "trtllm" and len(settings.nodes) > 1 and settings.serving.launcher == "swarm"


def engine(settings: Settings, facts: Mapping[str, NodeFacts]) -> Iterator[Problem]:
    """What this engine can't do, or lacks on a Spark."""
    yield from flags.refusals(settings.engine, image_name(settings), settings.serving.extra_args)
    yield from flags.unread(settings.engine, image_name(settings), settings.serving.env)
    yield from _version(settings)
    if settings.engine == "sglang" and settings.api_key.get_secret_value().startswith("-"):
        # Its --config makes words of a command line of the file. Source: srt/server_args_config_parser.py.
        yield Problem(
            "apiKey", "SGLang takes one that begins with - for an option", "pulumi config set --secret apiKey, anew"
        )
    if settings.engine == "trtllm":
        yield from _trtllm(settings)
    if on_ray(settings) and settings.containers.shm_size:
        yield Problem(
            "containers.shmSize",
            "Ray's containers and the server's share the Spark's own /dev/shm",
            "remove it, or do without Ray: pulumi config set --path serving.executor mp",
        )
    if settings.image.source == "build" and settings.engine != "vllm" and not settings.image.dockerfile:
        yield Problem("image.source", "there is a Dockerfile for vllm alone", "name your own with image.dockerfile")
    for name, node in facts.items():
        if on_swarm(settings) and not node.sudo:
            user = settings.login(name).user
            yield Problem(
                name,
                f"Swarm needs Docker's settings changed by root, and sudo asks {user} for a password, which pulumi up "
                "can't type",
                f"on it: echo '{user} ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/dgx-spark, or do without "
                "Swarm: pulumi config set --path serving.launcher mpi",
            )


def _version(settings: Settings) -> Iterator[Problem]:
    """An image that is known to be older than the model needs."""
    entry, image = catalog.find(settings.model, settings.catalog), image_name(settings)
    least = entry.served(settings.engine).min_version if entry else None
    has = flags.version(settings.engine, image)
    if least and has and flags.older(has, least):
        yield Problem(
            "image.name",
            f"{settings.model} needs {settings.engine} {least}, and {image.partition('@')[0]} has "
            + ".".join(map(str, has)),
            "name a newer image, or remove image.name" if settings.image.name else "another model or engine",
        )


def catalogued(context: Context) -> Iterator[Problem]:
    """What the catalog has that is not used, and what it has heard of; and what guesses tokens ahead where it can't."""
    settings, draft = context.settings, context.draft
    if context.entry and known.left_out(settings, context.entry.served(settings.engine)):
        theirs = context.entry.served(settings.engine).image
        yield Problem(
            "image.name",
            f"the catalog's options, environment and draft for {context.model.repo} are left out: for {theirs} alone",
            "serving.extraArgs, serving.env and serving.draft, where this image wants some",
            Severity.WARN,
        )
    trouble = context.entry.served(settings.engine).trouble if context.entry else None
    if trouble:
        wrong = f"{context.model.repo} on {settings.engine}: {trouble}"
        yield Problem("model", wrong, "another model or engine where it fails", Severity.WARN)
    if draft is None:
        return
    if context.task != "generate":
        yield Problem("serving.draft", f"{context.model.repo} gives no text to guess", "remove it")
    if draft.repo and context.model.path and len(settings.nodes) > 1:
        yield Problem(
            "serving.draft.model",
            "goes into the cache, and a copy may read one directory of another Spark: that of the model served",
            "method none, or move that model into the cache",
        )
    if draft.configured and split(settings, context.model.geometry)[1] > 1:
        rare = "few engines guess across a pipeline of Sparks"
        yield Problem("serving.draft", rare, "method none where it fails", Severity.WARN)


def loading(context: Context) -> Iterator[Problem]:
    """What has been reported of a loader on a Spark."""
    settings, repo = context.settings, context.model.repo
    at, other = "serving.loader", "pulumi config set --path serving.loader auto where it fails"
    if settings.engine == "trtllm":
        if settings.serving.loader:
            yield Problem(at, "trtllm-serve has no such option", "remove it")
        return
    chosen = wanted(settings, context.known).loader
    each = sum(file.size for file in context.model.files) / len(settings.nodes)
    if chosen == "fastsafetensors" and each > FAST_SHARE * min(node.memory for node in context.facts.values()):
        # eugr/spark-vllm-docker, README: not where the weights are more than 0.8 of the memory.
        yield Problem(at, f"{chosen} hangs where weights fill most of a Spark's memory", other, Severity.WARN)
    if chosen == "fastsafetensors" and "gemma4" in str(context.model.config.get("model_type")):
        # eugr/spark-vllm-docker, issue 205.
        yield Problem(at, f"{chosen} takes all of a Spark's memory with Gemma 4, as {repo} is", other, Severity.WARN)
    if chosen == "runai_streamer" and on_ray(settings):
        # vllm-project/vllm, issue 44430.
        yield Problem(at, f"{chosen} keeps all weights in memory under Ray", other, Severity.WARN)


FAST_SHARE = 0.8
"""Of a Spark's memory, up to which fastsafetensors is known to load weights."""


def pooling(context: Context) -> Iterator[Problem]:
    """Models that give no text, on engines that serve no such ones."""
    chosen = context.settings.engine
    if context.task not in SERVED.get(chosen, ("generate",)):
        yield Problem(
            "engine",
            f"{context.model.repo} is for {NOUNS[context.task]}, which {chosen} does not serve",
            "pulumi config set engine vllm, or another model",
        )


SERVED = {"vllm": ("generate", "embed", "score"), "sglang": ("generate", "embed"), "trtllm": ("generate",)}
"""What this program has an engine serve. trtllm-serve 1.2 has no endpoint for pooling models."""

NOUNS = {"generate": "text", "embed": "embeddings", "score": "ranking documents"}


def _trtllm(settings: Settings) -> Iterator[Problem]:
    """Of trtllm-serve 1.2, by its own list of options."""
    if settings.api_key.get_secret_value():
        yield Problem(
            "apiKey", "trtllm-serve can't ask for a key", "remove it, or put a gateway in front and bind serving.host"
        )
    if settings.serving.served_model_name:
        yield Problem(
            "serving.servedModelName", "trtllm-serve has no such option", "remove it: the name is the model's"
        )
    draft = known.draft(settings)
    if draft and draft.method not in trtllm.DECODING:
        methods = ", ".join(trtllm.DECODING)
        yield Problem("serving.draft", f"trtllm knows no {draft.method}", f"method {methods} or none")
    if len(settings.nodes) > 1 and any(" " in word for word in settings.serving.extra_args):
        yield Problem(
            "serving.extraArgs", "trtllm-llmapi-launch takes words with blanks apart", "write words without blanks"
        )


def docker_restarts(settings: Settings, facts: Mapping[str, NodeFacts], identity: Identity) -> Iterator[Problem]:
    """A note per Spark whose other containers a restart of Docker would stop for a moment."""
    for name, node in facts.items():
        record = node.records.get("swarm-host")
        others = [
            c.name for c in node.docker.containers if c.running and c.labels.get("dgx-spark.stack") != identity.full
        ]
        if on_swarm(settings) and others and not (record and record.intact):
            interrupted = f"Docker will be restarted for Swarm, which interrupts {', '.join(sorted(others))}"
            yield Problem(name, interrupted, "bring it up when that does no harm", Severity.WARN)


def ports(settings: Settings, identity: Identity, head: NodeFacts) -> Iterator[Problem]:
    """A port that somebody else listens on. Those of containers that are ours or will be removed don't count."""
    stacks = {identity.full, head.lease.stack if settings.takeover and head.lease else identity.full}
    ours = {
        int(port)
        for container in head.docker.containers
        if container.running and container.labels.get("dgx-spark.stack") in stacks
        for port in container.labels.get("dgx-spark.ports", "").split(",")
        if port
    }
    used = list(used_ports(settings))
    for key, port in used:
        if port in head.listening and port not in ours:
            choice = f" or set {key}" if key else ""
            yield Problem(
                settings.head.name,
                f"port {port} is in use by another program",
                f"stop it (`sudo ss -ltnp 'sport = :{port}'` names it){choice}",
            )
    every = [port for _, port in used]
    if len(set(every)) < len(every):
        yield Problem("serving.port", f"the same port twice: {', '.join(map(str, every))}", "one port per service")
