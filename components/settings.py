"""The only reader of stack config: what the user wrote, checked and typed.

Every mistake is reported at once (see `load`). Keys are written as in the stack file, in camelCase.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from components import ports
from components.problems import Problem, Refused

PROJECT = "dgx-spark"
"""The project's name in Pulumi.yaml, which prefixes its config keys."""

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]


class Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        # `pulumi config set --path` turns what looks like a number into one.
        coerce_numbers_to_str=True,
        # docs/configuration.md is made from what stands below each field (ops/reference.py).
        use_attribute_docstrings=True,
    )


def _ipv4(value: Any) -> str:
    """With a prefix length only where one was written: /32, which the library adds, is no fabric's."""
    return str(ipaddress.IPv4Interface(value) if "/" in str(value) else ipaddress.IPv4Address(value))


KEY_TYPES = "ssh-ed25519|ecdsa-sha2-nistp256"
"""Of host keys. With an RSA key the command provider takes SHA-1 signatures alone, which OpenSSH ≥ 8.8 refuses."""


def _host_key(value: str) -> str:
    """The key alone out of what people paste: a line of known_hosts, of ssh-keyscan or of a .pub file."""
    found = re.search(rf"(?:^|\s)({KEY_TYPES})[ \t]+([A-Za-z0-9+/]{{20,}}={{0,2}})(?=\s|$)", value)
    if not found:
        raise ValueError("must be an ed25519 (or ecdsa) host key, ssh-ed25519 AAAA…")
    return " ".join(found.groups())


def _user(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise ValueError("must be an account's name: letters, digits, dots, hyphens and underscores")
    return value


def _cache(value: str) -> str:
    # It stands in commands for shells, rsync and Docker. A relative one would mean another directory to each.
    if not re.fullmatch(r"(~[\w.-]*)?(/[\w./+@%=,-]*)?", value) or not value:
        raise ValueError("must be a path that begins with / or ~/, without blanks, quotes, colons and variables")
    return value


def _host(value: Any) -> Any:
    """IPv6 also as it stands in URLs."""
    return value[1:-1] if isinstance(value, str) and re.fullmatch(r"\[[0-9A-Fa-f:.]+\]", value) else value


def _text(value: Any) -> Any:
    """Variables are text, and YAML makes more of it: true."""
    return str(value).lower() if isinstance(value, bool) else value


HostKey = Annotated[str, AfterValidator(_host_key)]
User = Annotated[str, AfterValidator(_user)]
Cache = Annotated[str, AfterValidator(_cache)]
Host = Annotated[str, BeforeValidator(_host), Field(pattern=r"^[A-Za-z0-9.:_-]+$")]
Text = Annotated[str, BeforeValidator(_text)]


class NodeFabric(Frozen):
    """Detected values of one Spark's RDMA link, overridden by hand. An absent key is detected."""

    interface: str | None = None
    """Network device that carries bootstrap sockets, e.g. enp1s0f1np1."""

    address: Annotated[str, BeforeValidator(_ipv4)] | None = None
    """IPv4 of `interface`, e.g. 192.168.177.11/24. Without a prefix length: that which the interface has."""

    hcas: tuple[str, ...] | None = None
    """RDMA devices, e.g. [rocep1s0f1, roceP2p1s0f1]. An empty list turns RDMA off on this Spark."""

    gid_index: Annotated[int, Field(ge=0, le=255)] | None = None
    """Index of the RoCE v2 GID in the devices' tables."""


class Node(Frozen):
    """One Spark. The first in the list is the head."""

    name: Name
    """Lower-case letters, digits and hyphens; names resources, so changing it makes them anew."""

    host: Host
    """Address, name or alias of ssh_config: the ordinary Ethernet, not the QSFP link."""

    address: Host | None = None
    """Address or name in the URLs of what it serves. None: `host`, or the HostName that ssh_config gives it."""

    user: User | None = None
    """Account on this Spark. None: `ssh.user`."""

    port: Port | None = None
    """Of its sshd. None: `ssh.port`."""

    private_key_file: str | None = None
    """None: `ssh.privateKeyFile`."""

    gpu: Annotated[str, Field(pattern=r"^GPU-[0-9A-Za-z-]+$")] | None = None
    """UUID of the GPU to use where the Spark has several, as `nvidia-smi -L` prints it."""

    fabric: NodeFabric = NodeFabric()
    cache: Cache | None = None
    """Hugging Face cache directory on this Spark; None: `weights.cache`."""

    @property
    def url_host(self) -> str:
        """Its place in a URL: IPv6 in brackets."""
        where = self.address or self.host
        return f"[{where}]" if ":" in where else where


@dataclass(frozen=True)
class Login:
    """As whom, where and with what to log in to one Spark."""

    user: str
    port: int
    key_file: str | None
    """None: a running ssh-agent has the key."""


USER = "nvidia"
KEY_FILE = "~/.ssh/id_ed25519"


class Ssh(Frozen):
    """How to log in to the Sparks. What is not given here is taken from this machine's ssh_config."""

    user: User | None = None
    """Account on every Spark, a member of the group `docker`. None: ssh_config's, else nvidia."""

    port: Port | None = None
    """Of sshd on every Spark. None: ssh_config's, else 22."""

    host_keys: dict[str, HostKey] = {}
    """Node name → its public host key, as ssh-keyscan, known_hosts or the Spark's own .pub file show it."""

    private_key_file: str | None = None
    """Key on this machine, without a passphrase; or `agent`: the keys of a running ssh-agent. None: ssh_config's
    IdentityFile, else ~/.ssh/id_ed25519."""

    def login(self, node: Node) -> Login:
        """What the settings say of this node, filled up with the defaults (remote/reach.py asks ssh_config before)."""
        key = node.private_key_file or self.private_key_file or KEY_FILE
        return Login(
            node.user or self.user or USER, node.port or self.port or ports.SSH, None if key == "agent" else key
        )


class Serving(Frozen):
    """How the model is served. None: from the catalog, else worked out, else the engine's own default."""

    host: Annotated[str, BeforeValidator(lambda value: str(ipaddress.IPv4Address(value)))] = "0.0.0.0"
    """Address the API binds to on the head."""

    port: Port | None = None
    """Of the API. None: the engine's usual one, 8000 for vLLM, 30000 for SGLang and 8355 for TensorRT-LLM."""

    executor: Literal["ray", "mp"] = "mp"
    """How vLLM reaches the other Sparks: by torch's own rendezvous (mp), or by Ray, which is added to images that have
    none."""

    launcher: Literal["swarm", "mpi"] = "swarm"
    """How TensorRT-LLM's ranks are run on several Sparks: as Docker Swarm services, or as plain containers."""

    tensor_parallel: Annotated[int, Field(ge=1)] | None = None
    """GPUs that share each layer. None: all Sparks, where the attention heads can be divided by them."""

    pipeline_parallel: Annotated[int, Field(ge=1)] | None = None
    """Groups of layers one behind the other. tensorParallel × pipelineParallel is the number of Sparks."""

    data_parallel: Annotated[int, Field(ge=1)] = 1
    """vLLM: whole copies of the model, among which requests are spread. tensorParallel × pipelineParallel ×
    dataParallel is the number of Sparks."""

    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompt and answer together."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a Spark's memory that the engine may take; CPU and GPU share the same memory. TensorRT-LLM: share
    for its KV cache of what is free after the weights."""

    expert_parallel: bool | None = None
    """Divide the experts of a mixture-of-experts model over the GPUs instead of each expert."""

    trust_remote_code: bool | None = None
    """Runs Python code from the model's repository."""

    reasoning_parser: str | None = None
    """The engine's name for how this model marks its reasoning."""

    tool_call_parser: str | None = None
    """The engine's name for how this model calls tools; turns tool choice on."""

    served_model_name: str | None = None
    """Name of the model in the API. None: its repository."""

    extra_args: tuple[str, ...] = ()
    """Handed to the engine as they are, one word each."""

    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text] = {}
    """Environment of every rank, over what is worked out."""

    restarts: Annotated[int, Field(ge=0)] = 3
    """How often the server starts again after failures in a row, all ranks together, before it gives up."""

    check_fit: bool = True
    """Refuse a model that by estimate does not fit into the Sparks' memory; false turns that into a warning."""

    check_answer: bool = True
    """Before it counts as ready, the model must know the capital of France (a pooling model: tell which sentences
    mean the same); false where yours can't."""

    startup_timeout: Annotated[int, Field(ge=10)] | None = None
    """Seconds from the server's start to its first answer. None: from the catalog, else half an hour, and more for
    weights of more than 60 GB per Spark."""

    @property
    def local_host(self) -> str:
        """Where the API answers on the head itself."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


class Encoding(Frozen):
    """A tokenizer vocabulary that some models need beside their weights."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]+.*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


TIKTOKEN = "https://openaipublic.blob.core.windows.net/encodings"
ENCODINGS = {
    "o200k_base": Encoding(
        url=f"{TIKTOKEN}/o200k_base.tiktoken", sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    ),
    "cl100k_base": Encoding(
        url=f"{TIKTOKEN}/cl100k_base.tiktoken",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
"""Source of the checksums: openai/tiktoken, tiktoken_ext/openai_public.py."""


class Weights(Frozen):
    """Where weights come from and live."""

    cache: Cache = "~/.cache/huggingface"
    """Hugging Face cache directory (HF_HOME) on every Spark; ~ is the SSH user's home."""

    revision: str | None = None
    """Branch, tag or commit. None: main as it was when this model was first deployed."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+.*$")] = "https://huggingface.co"
    """The model hub, or a mirror that speaks its API."""

    encodings: dict[str, Encoding] = ENCODINGS
    """Vocabularies that gpt-oss needs beside its weights (name → url, sha256): for a mirror."""

    stage: tuple[str, ...] = ()
    """Further models to have in place on every Spark, so that a switch to one of them needs no download."""

    offline: bool = False
    """Fetch nothing: the model is in the head's cache already, put there with `hf download` or by hand. The other
    Sparks copy from the head what they lack."""

    shared: bool = False
    """The cache is one directory on a filesystem that all Sparks mount: filled by the head, copied nowhere."""

    keep: bool = True
    """Leave the weights on the Sparks when the stack is destroyed."""


class ImageSettings(Frozen):
    """The engine's container image."""

    name: str | None = None
    """Container image. None: the engine's default, see components/plan/engines/."""

    source: Literal["pull", "copy", "build"] = "pull"
    """pull: on every Spark. copy: on the head alone, which streams it to the others over the fabric. build: made
    on the head from a Dockerfile, then streamed."""

    dockerfile: str | None = None
    """With `build`: a file on this machine, which must need no files beside it. None: vLLM from source,
    components/images/vllm.Dockerfile."""

    build_args: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text] = {}
    """With `build`: the Dockerfile's arguments, e.g. VLLM_REF. A new CACHEBUST_VLLM or CACHEBUST_DEPS fetches
    vLLM's source, or every dependency, again."""


class Containers(Frozen):
    """How containers are run."""

    privileged: bool = False
    """Give the containers every right on the Spark. Not needed for RDMA."""

    shm_size: Annotated[int, Field(ge=64)] | None = None
    """MiB of a /dev/shm of each container's own. None: the Spark's own /dev/shm, which holds half its memory, for plain
    containers; 16384 for Swarm services, which can't have that."""


class FabricSettings(Frozen):
    """The link between the Sparks."""

    hcas: Literal["both", "single"] = "both"
    """Both halves ("twins") of the QSFP port carry 100 Gb/s each; single pins the first, which cures
    hangs on switches that put both into one subnet."""

    rdma: Literal["require", "warn"] = "warn"
    """What to do where traffic would not be on RDMA and so be 10-20 times slower; also where NCCL's own log says so
    once the server runs."""

    min_rdma_gbps: Annotated[float, Field(ge=0)] = 80
    """Gb/s that RDMA must carry from each Spark to each other one before anything stands on it, measured with
    perftest where all Sparks have it; 0: not measured. One healthy twin carries 92, a pair of twins 189, a degraded
    one 13."""

    min_tcp_gbps: Annotated[float, Field(ge=0)] = 20
    """The same for TCP streams, where a Spark has no perftest."""


class TrtllmSettings(Frozen):
    """TensorRT-LLM's own. None: from the catalog, else as written here."""

    max_num_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of all requests in one step, 8192: a budget of the scheduler, not the context's length."""

    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Requests in one step, 4."""

    backend: Literal["pytorch", "tensorrt", "_autodeploy"] | None = None
    """pytorch, unless a model needs another."""


class SwarmSettings(Frozen):
    """Docker Swarm, on which TensorRT-LLM's ranks run."""

    keep: bool = False
    """When the stack is destroyed, leave the Swarm and Docker's settings for it as they are."""


class RaySettings(Frozen):
    """Ray, where there are several Sparks."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "2.55.1"
    """Put into images that have no Ray. Images that have one keep theirs, equal on all Sparks."""

    port: Port = ports.RAY
    """Of Ray's control store, on the head's fabric address."""

    dashboard_port: Port = ports.RAY_DASHBOARD
    """Of Ray's dashboard on the head."""

    dashboard_host: str = "127.0.0.1"
    """Ray's dashboard and jobs API run any code without asking: not for open networks."""


Role = Literal["prometheus", "grafana", "node-exporter", "gpu-exporter", "gateway", "chat"]


class BesideSettings(Frozen):
    """Of `monitoring`, `gateway` and `chat`."""

    host: Annotated[str, BeforeValidator(lambda value: str(ipaddress.IPv4Address(value)))] = "0.0.0.0"
    """Address on the head that Grafana, gateway and chat bind to."""

    grafana_port: Port = ports.GRAFANA
    """Where people look at the dashboards; anybody may, and nobody may change them."""

    gateway_port: Port = ports.GATEWAY
    """Of the gateway's OpenAI API."""

    chat_port: Port = ports.CHAT
    """Of the chat page."""

    retention: Annotated[str, Field(pattern=r"^\d+[dwy]$")] = "15d"
    """How long Prometheus keeps figures."""

    images: dict[Role, Annotated[str, Field(min_length=1)]] = {}
    """Role → image in place of the pinned one (components/plan/beside.py)."""


def _place(host: str, port: int) -> str:
    """The same for one sshd, however its host is written."""
    try:
        name = str(ipaddress.ip_address(host))
    except ValueError:
        name = host.lower().rstrip(".")
    return name if port == ports.SSH else f"{name} port {port}"


class Settings(Frozen):
    """A stack's whole configuration."""

    nodes: tuple[Node, ...]
    """The Sparks, head first."""

    engine: Literal["vllm", "sglang", "trtllm"]
    """Inference engine."""

    model: Annotated[str, Field(min_length=1)]
    """A name from the catalog, any Hugging Face repository, ORG/NAME, or a directory on the head, /PATH."""

    catalog: str = ""
    """File on this machine with more models, written as components/catalog/models.yaml."""

    ssh: Ssh = Ssh()
    serving: Serving = Serving()
    weights: Weights = Weights()
    image: ImageSettings = ImageSettings()
    containers: Containers = Containers()
    fabric: FabricSettings = FabricSettings()
    ray: RaySettings = RaySettings()
    trtllm: TrtllmSettings = TrtllmSettings()
    swarm: SwarmSettings = SwarmSettings()
    takeover: bool = False
    """Take Sparks that another stack holds: its server is stopped and removed when this one's image and weights are
    in place. False: be told who holds them."""

    monitoring: bool = False
    """Prometheus and Grafana on the head, with exporters for GPU, memory and fabric on every Spark."""

    gateway: bool = False
    """LiteLLM on the head: one OpenAI endpoint in front, which only the keys in `gatewayKeys` open."""

    chat: bool = False
    """Open WebUI on the head, for people; who registers first is its administrator."""

    beside: BesideSettings = BesideSettings()
    gateway_keys: dict[Name, SecretStr] = {}
    """Who may use the gateway: name → key."""

    hf_token: SecretStr = SecretStr("")
    """Hugging Face token for gated models. Goes to the Sparks by stdin and is kept nowhere there."""

    api_key: SecretStr = SecretStr("")
    """Clients must send it as bearer token. Empty: the API is open to whoever reaches its port."""

    _encrypted: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.nodes:
            raise ValueError("nodes: holds no Spark")
        places = [_place(node.host, self.ssh.login(node).port) for node in self.nodes]
        for attribute, values in {"name": [node.name for node in self.nodes], "host": places}.items():
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"nodes: {', '.join(twice)} is used as {attribute} of more than one node")
        unknown = sorted(set(self.ssh.host_keys) - {node.name for node in self.nodes})
        if unknown:
            raise ValueError(f"ssh.hostKeys: {', '.join(unknown)} is no name of a node")
        return self

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def is_encrypted(self, key: str) -> bool:
        """Some part of this key is encrypted in the stack's file; Pulumi does not say which."""
        return key in self._encrypted

    def login(self, name: str) -> Login:
        """How to log in to the node of this name."""
        (node,) = (node for node in self.nodes if node.name == name)
        return self.ssh.login(node)


TOP_LEVEL = {to_camel(name): name for name in Settings.model_fields}
PLAIN = ("engine", "model", "catalog", "hfToken", "apiKey")
"""Keys whose value is a string; the others are objects or lists, which reach the program as JSON."""


def load(raw: Mapping[str, str], project: str = PROJECT, encrypted: Collection[str] | None = None) -> Settings:
    """Settings from all config keys of the stack, as strings.

    encrypted   keys of which some part is encrypted in the stack's file; None: not known, so not looked at
    Raises Refused with every mistake: unknown keys, missing ones, wrong types and values, secrets in plain text.
    """
    own = {key.removeprefix(f"{project}:"): value for key, value in raw.items() if key.startswith(f"{project}:")}
    problems = [
        Problem(
            f"{project}:{key}",
            "is not a setting",
            f"remove it with `pulumi config rm {key}`; there are {', '.join(TOP_LEVEL)}",
        )
        for key in sorted(set(own) - set(TOP_LEVEL))
    ]
    values: dict[str, Any] = {}
    for key, text in own.items():
        if key not in TOP_LEVEL:
            continue
        if key in PLAIN:
            values[key] = text
            continue
        try:
            values[key] = json.loads(text)
        except ValueError:
            switches = dict.fromkeys(("takeover", "monitoring", "gateway", "chat"), "true or false")
            kind = {"nodes": "a list of Sparks", **switches}.get(key, "an object")
            problems.append(
                Problem(f"{project}:{key}", f"is {text!r}, not {kind}", f"see {key} in docs/configuration.md")
            )
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        broken = {problem.at for problem in problems}
        found = [_explain(detail, project) for detail in error.errors()]
        raise Refused([*problems, *(problem for problem in found if problem.at not in broken)]) from None
    problems += _missing_host_keys(settings, project)
    settings._encrypted = frozenset(key.removeprefix(f"{project}:") for key in encrypted or ())
    if encrypted is not None:
        problems += _plain_secrets(settings, project, encrypted)
    if problems:
        raise Refused(problems)
    return settings


def _missing_host_keys(settings: Settings, project: str) -> Iterator[Problem]:
    for node in settings.nodes:
        if node.name not in settings.ssh.host_keys:
            port = settings.ssh.login(node).port
            scan = f"ssh-keyscan -t ed25519{'' if port == ports.SSH else f' -p {port}'} {node.host}"
            yield Problem(
                f"{project}:ssh.hostKeys.{node.name}",
                "is missing, so nothing would prove that this is the right machine",
                f"run `{scan}`, compare with /etc/ssh/ssh_host_ed25519_key.pub on the "
                f"Spark, then `pulumi config set --path 'ssh.hostKeys.{node.name}' 'ssh-ed25519 AAAA…'`",
            )


def _plain_secrets(settings: Settings, project: str, encrypted: Collection[str]) -> Iterator[Problem]:
    # Pulumi.yaml can't demand it: `secret: true` there refuses a default as well, and so makes the key mandatory.
    # Of an object Pulumi says only whether anything in it is encrypted.
    for key, name in TOP_LEVEL.items():
        if f"{project}:{key}" not in encrypted:
            for path in _secrets(getattr(settings, name), key):
                option = "" if path == key else "--path "
                yield Problem(
                    f"{project}:{path}",
                    "is a secret, and is not encrypted in the stack's file",
                    f"pulumi config set --secret {option}{path} …",
                )


def _secrets(value: Any, path: str) -> Iterator[str]:
    """Paths of the secrets in it that are not empty."""
    if isinstance(value, SecretStr):
        if value.get_secret_value():
            yield path
    elif isinstance(value, Frozen):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), f"{path}.{to_camel(name)}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets(item, f"{path}.{name}")


def _explain(detail: Any, project: str) -> Problem:
    path = _path(detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    at = f"{project}:{path}" if path else project
    if kind == "missing":
        value = "ADDRESS" if path.endswith("host") else "VALUE"
        return Problem(at, "is missing", f"pulumi config set --path '{path}' {value}")
    if kind == "extra_forbidden":
        return Problem(at, "is not a setting", f"remove it: pulumi config rm --path '{path}'")
    if kind == "value_error" and not path:
        where, _, wrong = str(context["error"]).partition(": ")
        return Problem(f"{project}:{where}", wrong, "correct it in the stack's Pulumi.<stack>.yaml")
    given = "" if "token" in path.lower() or "key" in path.lower() else f" (it is {detail['input']!r})"
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(at, message[0].lower() + message[1:] + given, f"pulumi config set --path '{path}' VALUE")


def _path(location: tuple[int | str, ...]) -> str:
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return re.sub(r"^\.", "", words)
