"""A small local model hub that the real huggingface_hub client downloads from, and a package index for pip.

`python -m simulator.hub DIRECTORY WHEELS PORT` serves:
  /api/models/REPO[/revision/REV]   what the repository holds
  /api/models/REPO/tree/REV         its files
  /REPO/resolve/REV/FILE            one file, with Range (so downloads resume)
  /encodings/FILE                   a tokenizer vocabulary
  /simple/PACKAGE/                  PEP 503 index of the wheels
A repository is a folder DIRECTORY/ORG/NAME with its files and `.repository.json` (see Repository).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_simulated_licence_accepted"
"""Opens the gated repositories."""

MEBIBYTE = 1 << 20

PULL_REQUEST = "refs/pr/1"
"""A revision that every repository has: the first pull request to it, which changes nothing."""

RATE = ".rate"
"""File beside the repositories that slows the hub down."""

ENCODINGS = {f"/encodings/{name}.tiktoken": f"simulated {name}\n".encode() for name in ("o200k_base", "cl100k_base")}
"""Path → tokenizer vocabulary."""


def encodings(hub: str) -> dict[str, dict[str, str]]:
    """Where they are, as stack config has it."""
    return {
        Path(path).stem: {"url": f"{hub}{path}", "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in ENCODINGS.items()
    }


@dataclass(frozen=True)
class Repository:
    """What the hub knows of a repository beside its files."""

    commit: str
    gated: bool = False
    announced: dict[str, int] = field(default_factory=dict)
    """File → size in bytes that is announced in place of the real one."""


CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@dataclass(frozen=True)
class Recipe:
    """A model to put on the hub: its config.json, and how much there is to download."""

    repo: str
    config: dict[str, object]
    shards: int = 2
    mebibytes: int = 4
    """Of one shard."""

    gated: bool = False
    announced: dict[str, int] = field(default_factory=dict)
    more: tuple[tuple[str, str], ...] = (("chat_template.jinja", CHAT_TEMPLATE),)
    """(file, text) beside those that every model has."""


def _llama(layers: int, hidden: int, heads: int, kv_heads: int, positions: int = 131072) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "max_position_embeddings": positions,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256,
    }


GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "head_dim": 64,
    "hidden_size": 2880,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "vocab_size": 201088,
}

RECIPES = (
    Recipe("openai/gpt-oss-120b", {**GPT_OSS, "num_hidden_layers": 36, "num_local_experts": 128}, shards=3),
    Recipe("openai/gpt-oss-20b", {**GPT_OSS, "num_hidden_layers": 24, "num_local_experts": 32}),
    Recipe("Qwen/Qwen2.5-7B-Instruct", _llama(28, 3584, 28, 4, 32768)),
    Recipe("meta-llama/Llama-3.3-70B-Instruct", _llama(80, 8192, 64, 8), gated=True),
    Recipe("simulated/base", _llama(28, 3584, 28, 4, 32768), more=()),
    Recipe("simulated/embedding", _llama(28, 3584, 28, 4, 32768), more=(("modules.json", "[]"),)),
    Recipe(
        "simulated/reranker",
        {**_llama(28, 3584, 28, 4, 32768), "architectures": ["LlamaForSequenceClassification"]},
        more=(),
    ),
    Recipe("simulated/draft", _llama(1, 3584, 28, 4, 32768), shards=1, mebibytes=1, more=()),
    Recipe("simulated/large", _llama(28, 3584, 28, 4, 32768), shards=1, mebibytes=32),
    Recipe("simulated/enormous", _llama(80, 8192, 64, 8), announced={"model-00001-of-00002.safetensors": 1 << 52}),
)


def publish(directory: Path) -> None:
    """Make the repositories of RECIPES, with weights of a few MiB and the same bytes every time."""
    for recipe in RECIPES:
        folder = directory / recipe.repo
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"model-{n:05}-of-{recipe.shards:05}.safetensors" for n in range(1, recipe.shards + 1)]
        for name in names:
            (folder / name).write_bytes(random.Random(f"{recipe.repo}/{name}").randbytes(recipe.mebibytes * MEBIBYTE))
        index = {
            "metadata": {"total_size": recipe.mebibytes * MEBIBYTE * recipe.shards},
            "weight_map": {n: n for n in names},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        (folder / "config.json").write_text(json.dumps(recipe.config, indent=2))
        (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "BPE"}}))
        for name, text in recipe.more:
            (folder / name).write_text(text)
        second_copy = folder / "original" / "model.safetensors"
        second_copy.parent.mkdir(exist_ok=True)
        second_copy.write_bytes(random.Random("second copy").randbytes(MEBIBYTE))
        _announce(folder, recipe.repo, recipe.gated, recipe.announced)


def add(directory: Path, more: Path) -> None:
    """Publish the models that are folders ORG/NAME in `more`."""
    for folder in more.glob("*/*"):
        repo = str(folder.relative_to(more))
        shutil.copytree(folder, directory / repo)
        _announce(directory / repo, repo)


def _announce(folder: Path, repo: str, gated: bool = False, announced: dict[str, int] | None = None) -> None:
    about = Repository(hashlib.sha1(repo.encode()).hexdigest(), gated, announced or {})
    (folder / ".repository.json").write_text(json.dumps(asdict(about)))


class Missing(Exception):
    """Answered with a status and the error code that huggingface_hub turns into its exceptions."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path
    wheels: Path

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{self.client_address[0]} {format % args}\n")

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        raw = urlsplit(self.path).path
        path = unquote(raw)
        try:
            # A revision may have slashes, which come quoted: refs%2Fpr%2F1.
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", raw):
                self._about(match[1], unquote(match[2]) if match[2] else None, body=body)
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", raw):
                revision = unquote(match[2])
                self._json([self._entry(match[1], revision, name) for name in self._files(match[1])], body=body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(*match.groups(), body=body)
            elif match := re.fullmatch(r"/simple/([^/]+)/?", path):
                self._index(match[1], body=body)
            elif path in ENCODINGS:
                self._send(ENCODINGS[path], body=body)
            elif match := re.fullmatch(r"/wheels/([^/]+)", path):
                self._bytes(self.wheels / match[1], {}, body=body)
            else:
                raise Missing(404, "EntryNotFound", "not found")
        except Missing as missing:
            self.send_response(missing.status)
            self.send_header("X-Error-Code", missing.code)
            self.send_header("X-Error-Message", str(missing))
            self.send_header("Content-Length", "0")
            self.end_headers()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _repository(self, repo: str, revision: str | None) -> Repository:
        about = self.directory / repo / ".repository.json"
        # The real hub answers 401 for what does not exist, so as not to tell private names apart.
        if not about.exists():
            raise Missing(401, "RepoNotFound", "Repository not found")
        repository = Repository(**json.loads(about.read_text()))
        if revision not in (None, "main", PULL_REQUEST, repository.commit):
            raise Missing(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository

    def _allowed(self, repository: Repository) -> None:
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if self.headers.get("Authorization") else 401
            raise Missing(status, "GatedRepo", "Access to this model is restricted and you are not in the list")

    def _files(self, repo: str) -> list[str]:
        folder = self.directory / repo
        found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name != ".repository.json")

    def _entry(self, repo: str, revision: str, name: str) -> dict[str, object]:
        repository = self._repository(repo, revision)
        self._allowed(repository)
        path = self.directory / repo / name
        size = repository.announced.get(name, path.stat().st_size)
        entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": self._oid(path)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": self._sha256(path), "size": size, "pointerSize": 134}
        return entry

    def _about(self, repo: str, revision: str | None, *, body: bool) -> None:
        repository = self._repository(repo, revision)
        siblings, stored = [], 0
        for name in self._files(repo):
            path = self.directory / repo / name
            size = repository.announced.get(name, path.stat().st_size)
            sibling: dict[str, object] = {"rfilename": name, "size": size, "blobId": self._oid(path)}
            if name.endswith(".safetensors"):
                sibling["lfs"] = {"sha256": self._sha256(path), "size": size, "pointerSize": 134}
                stored += size if "/" not in name else 0
            siblings.append(sibling)
        gated = "manual" if repository.gated else False
        about: dict[str, object] = {
            "id": repo,
            "modelId": repo,
            "sha": repository.commit,
            "gated": gated,
            "private": False,
        }
        about["safetensors"] = {"parameters": {"BF16": stored // 2}, "total": stored // 2}
        self._json({**about, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}, body=body)

    def _file(self, repo: str, revision: str, name: str, *, body: bool) -> None:
        repository = self._repository(repo, revision)
        self._allowed(repository)
        path = self.directory / repo / name
        if name not in self._files(repo):
            raise Missing(404, "EntryNotFound", "Entry not found")
        etag = self._sha256(path) if name.endswith(".safetensors") else self._oid(path)
        self._bytes(path, {"ETag": f'"{etag}"', "X-Repo-Commit": repository.commit}, body=body)

    def _bytes(self, path: Path, headers: dict[str, str], *, body: bool) -> None:
        if not path.is_file():
            raise Missing(404, "EntryNotFound", "not found")
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first = int(wanted[1]) if wanted else 0
        last = int(wanted[2]) if wanted and wanted[2] else len(content) - 1
        self.send_response(206 if wanted else 200)
        if wanted:
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        for key, value in {**headers, "Accept-Ranges": "bytes", "Content-Length": str(last + 1 - first)}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self._pour(content[first : last + 1])

    def _pour(self, content: bytes) -> None:
        """At the rate in the file RATE, bytes per second, as long as there is one."""
        piece, sent = MEBIBYTE // 4, 0
        try:
            for start in range(0, len(content), piece):
                rate = self.directory / RATE
                if rate.exists():
                    time.sleep(piece / int(rate.read_text()))
                self.wfile.write(content[start : start + piece])
                sent += len(content[start : start + piece])
        finally:
            self.log_message("sent %d bytes of %s", sent, self.path)

    def _index(self, package: str, *, body: bool) -> None:
        def normal(name: str) -> str:
            return re.sub(r"[-_.]+", "-", name).lower()

        names = sorted(p.name for p in self.wheels.glob("*.whl") if normal(p.name.split("-")[0]) == normal(package))
        if not names:
            raise Missing(404, "EntryNotFound", "no such package")
        page = "".join(f'<a href="/wheels/{name}">{name}</a>\n' for name in names).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if body:
            self.wfile.write(page)

    def _json(self, payload: object, *, body: bool) -> None:
        content = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    @staticmethod
    def _oid(path: Path) -> str:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @staticmethod
    def _sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    directory, wheels, address, port = sys.argv[1:]
    handler = type("Bound", (Handler,), {"directory": Path(directory), "wheels": Path(wheels)})
    server = ThreadingHTTPServer((address, int(port)), handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
