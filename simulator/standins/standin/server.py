"""The OpenAI-compatible HTTP API: /health, /version, /v1/models, /metrics; /v1/completions and /v1/chat/completions, or
of a pooling model /v1/embeddings or /v1/rerank and /v1/score."""

import contextlib
import itertools
import json
import operator
import os
import re
import signal
import socket
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standin.knobs import knobs
from standin.ranks import DeadRank

GAUGES = {
    "vllm": ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    "sglang": ("num_running_reqs", "num_queue_reqs", "token_usage"),
    "trtllm": (),
}

KNOWN, ANSWER, NOISE = "capital of france", "Paris.", "lockhandle"
"""What every model knows, and what a GPU says whose kernels are wrong for it."""

REASONING = {"vllm": "reasoning", "sglang": "reasoning_content", "trtllm": "reasoning_content"}
"""Where each engine puts what a model thinks first: vLLM 0.19 and 0.31, SGLang 0.5.23, TensorRT-LLM 1.2."""

NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
    "tokenizer does not define one."
)

WORDS = ["The", "Spark", "answers", "from", "its", "simulated", "GPU", "with", "one", "word", "after", "another"]


class State:
    """What the handlers share: configuration, the executor and the counters shown by /metrics."""

    def __init__(
        self,
        *,
        names,
        keys,
        max_model_len,
        step,
        family="vllm",
        tools=False,
        metrics=True,
        version="",
        task="generate",
        template=True,
        reasons=False,
    ) -> None:
        self.names, self.keys, self.max_model_len, self.step = names, set(keys), max_model_len, step
        self.family = family
        """Prefix of the metrics' names."""

        self.metrics = metrics
        self.took: list[float] = []
        """Seconds of each answer so far."""

        self.version, self.task = version, task
        self.template, self.reasons = template, reasons
        self.tools = tools
        """Whether tool calls are parsed out of answers."""

        self.created = int(time.time())
        self.lock = threading.Lock()
        self.counts = {"prompt_tokens": 0, "generation_tokens": 0, "request_success": 0}
        self.running = 0
        """Requests that were accepted and are not answered."""

        self.ending = False
        """It was told to end."""

    def count(self, **more: int) -> None:
        with self.lock:
            for name, value in more.items():
                self.counts[name] += value


def serve(host: str, port: int, state: State, drain: float = 0) -> None:
    """`drain`: seconds from SIGTERM in which what was accepted may still be answered."""

    def end() -> None:
        state.ending = True
        deadline = time.monotonic() + drain

        def answered() -> None:
            while state.running and time.monotonic() < deadline:
                time.sleep(0.05)

        if drain:
            answered()
            # Nobody is let in any more, and whoever was is answered. At once: until its loop has seen that it shall
            # end, half a second later, connections would come in that nobody takes.
            server.socket.shutdown(socket.SHUT_RDWR)
            server.shutdown()
            server.socket.close()
            answered()
        os._exit(0)

    def told(*_) -> None:
        if not ending.is_alive():
            ending.start()

    handler = type("Bound", (Handler,), {"state": state})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    ending = threading.Thread(target=end)
    signal.signal(signal.SIGTERM, told)
    server.serve_forever()
    # It was told to end.
    ending.join()


def task(config: dict) -> str:
    """What a pooling runner makes of a model: as vLLM converts it by its architecture's name and its files."""
    if str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        return "score"
    return "embed"


def has_template(path: str) -> bool:
    return os.path.exists(os.path.join(path, "chat_template.jinja"))


def vector(text: str) -> list:
    """Texts with words in common point the same way; of a GPU whose kernels are wrong, none do."""
    if knobs().garbles:
        text = NOISE + text[:1]
    counts = [0.0] * 32
    for word in re.findall(r"[a-z]{4,}", text.lower()):
        counts[zlib.crc32(word[:5].encode()) % len(counts)] += 1.0
    length = sum(count * count for count in counts) ** 0.5 or 1.0
    return [count / length for count in counts]


DEAD = {"vllm": 0, "sglang": 1, "trtllm": 1}
"""Exit code of a server whose engine has died. Measured: vLLM 0.32."""

KINDS = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
"""Status → what vLLM calls an error (measured, 0.32)."""


class Refusal(Exception):
    def __init__(self, status: int, message: str, about: str | None = None) -> None:
        """`about`: the part of the request that is wrong."""
        super().__init__(message)
        self.status, self.about = status, about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args) -> None:
        print(f'INFO:     {self.client_address[0]} - "{format % args}"', flush=True)

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"", "text/plain")
        elif self.path == "/version":
            self._json(200, {"version": self.state.version})
        elif self.path == "/metrics" and self.state.metrics:
            self._send(200, self._metrics().encode(), "text/plain; version=0.0.4")
        elif self.path == "/v1/models":
            self._guard(self._models)
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        answers = {
            "generate": {"/v1/completions": self._complete, "/v1/chat/completions": self._complete},
            "embed": {"/v1/embeddings": self._embed},
            "score": {"/v1/rerank": self._rerank, "/rerank": self._rerank},
        }[self.state.task]
        if self.path in answers:
            self._guard(answers[self.path])
        else:
            self._json(404, {"detail": "Not Found"})

    def _guard(self, answer) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.state.ending and self.state.family == "vllm":
            self._json(503, {"error": "Server is shutting down"})
            return
        with self._accepted():
            self._answer(answer, body)

    @contextlib.contextmanager
    def _accepted(self):
        change = int(self.command == "POST")
        with self.state.lock:
            self.state.running += change
        try:
            yield
        finally:
            with self.state.lock:
                self.state.running -= change

    def _answer(self, answer, body: bytes) -> None:
        while self.command == "POST" and knobs().wedged:
            time.sleep(1)
        try:
            key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if self.state.keys and key not in self.state.keys:
                self._json(401, {"error": "Unauthorized"})
                return
            answer(json.loads(body or b"{}"))
        except Refusal as refusal:
            error = {"message": str(refusal), "type": KINDS[refusal.status], "param": refusal.about}
            self._json(refusal.status, {"error": {**error, "code": refusal.status}})

    def _models(self, _) -> None:
        s = self.state
        card = {"object": "model", "created": s.created, "owned_by": "vllm", "max_model_len": s.max_model_len}
        self._json(200, {"object": "list", "data": [{"id": name, **card} for name in s.names]})

    def _known(self, request: dict) -> None:
        model, names = request.get("model"), self.state.names
        if model not in names:
            aliases = ", ".join(names)
            raise Refusal(404, f"The model `{model}` does not exist. Valid aliases: {aliases}.", "model")

    def _complete(self, request: dict) -> None:
        chat = self.path.endswith("chat/completions")
        self._known(request)
        prompt = self._prompt(request, chat)
        wanted = int(request.get("max_completion_tokens") or request.get("max_tokens") or 16)
        used = len(prompt.split())
        longest = self.state.max_model_len
        if wanted > longest:
            raise Refusal(400, f"max_tokens={wanted} cannot be greater than max_model_len={longest}.", "max_tokens")
        if used + wanted > longest:
            raise Refusal(400, f"This model's maximum context length is {longest} tokens.", "input_tokens")
        words = self._words(prompt, wanted)
        usage = {"prompt_tokens": used, "completion_tokens": len(words), "total_tokens": used + len(words)}
        began = time.monotonic()
        self._step()
        if not request.get("stream"):
            for _ in self._spoken(words):
                pass
        self.state.took.append(time.monotonic() - began)
        self.state.count(prompt_tokens=used, generation_tokens=len(words), request_success=1)
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request["model"],
        }
        if request.get("stream"):
            self._stream(head, words, usage, request, chat)
            return
        text = "".join(words)
        part = {"message": self._message(text)} if chat else {"text": text}
        choice = {"index": 0, "finish_reason": "length" if len(words) == wanted else "stop", **part}
        if chat and request.get("tools") and self._parses_tools():
            choice = self._call(request["tools"][0]["function"])
        kind = "chat.completion" if chat else "text_completion"
        self._json(200, {**head, "object": kind, "choices": [choice], "usage": usage})

    def _step(self) -> None:
        try:
            self.state.step()
        except DeadRank as error:
            # A dead rank shows at the first request: it fails, and the server ends about a second later (measured).
            threading.Timer(1, os._exit, [DEAD[self.state.family]]).start()
            raise Refusal(500, f"EngineDeadError: {error}") from error

    def _spoken(self, words: list):
        """One after the other, each a step of all ranks where it takes its time."""
        pause = knobs().word_seconds
        for word in words:
            if pause:
                time.sleep(pause)
                self._step()
            yield word

    def _words(self, prompt: str, wanted: int) -> list:
        """The answer to what every model knows, else some words."""
        if knobs().garbles:
            return [NOISE] * wanted
        if KNOWN in prompt.lower():
            return [f" {ANSWER}"][:wanted]
        return [word + " " for word in itertools.islice(itertools.cycle(WORDS), wanted)]

    def _message(self, text: str) -> dict:
        if knobs().mute:
            return {"role": "assistant", "content": None, REASONING[self.state.family]: None}
        if self.state.reasons:
            return {"role": "assistant", "content": text, REASONING[self.state.family]: "The user asks."}
        return {"role": "assistant", "content": text}

    def _pool(self, request: dict) -> None:
        self._known(request)
        self._step()

    def _embed(self, request: dict) -> None:
        self._pool(request)
        texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
        data = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
        self._json(200, {"object": "list", "model": request["model"], "data": data})

    def _rerank(self, request: dict) -> None:
        self._pool(request)
        asked = vector(request["query"])
        scored = [
            {"index": n, "document": {"text": text}, "relevance_score": sum(map(operator.mul, asked, vector(text)))}
            for n, text in enumerate(request["documents"])
        ]
        scored.sort(key=lambda one: -one["relevance_score"])
        self._json(200, {"id": f"rerank-{uuid.uuid4().hex}", "model": request["model"], "results": scored})

    def _parses_tools(self) -> bool:
        if not self.state.tools and self.state.family == "vllm":
            raise Refusal(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        return self.state.tools

    def _call(self, function: dict) -> dict:
        arguments = dict.fromkeys(function["parameters"]["required"], "Paris")
        call = {"name": function["name"], "arguments": json.dumps(arguments)}
        calls = [{"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": call}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return {"index": 0, "finish_reason": "tool_calls", "message": message}

    def _prompt(self, request: dict, chat: bool) -> str:
        if chat:
            messages = request.get("messages")
            if not isinstance(messages, list) or not messages:
                raise Refusal(400, "messages must be a list that is not empty")
            if not self.state.template:
                raise Refusal(400, NO_TEMPLATE)
            return " ".join(str(message.get("content", "")) for message in messages)
        if "prompt" not in request:
            raise Refusal(400, "prompt is missing")
        return str(request["prompt"])

    def _stream(self, head: dict, words: list, usage: dict, request: dict, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        kind = "chat.completion.chunk" if chat else "text_completion"
        if chat:
            # The first piece says who speaks, and nothing more.
            said = {"role": "assistant", "content": ""}
            self._event({**head, "object": kind, "choices": [{"index": 0, "finish_reason": None, "delta": said}]})
        for number, word in enumerate(self._spoken(words)):
            part = {"delta": {"content": word}} if chat else {"text": word}
            last = number == len(words) - 1
            choice = {"index": 0, "finish_reason": "length" if last else None, **part}
            self._event({**head, "object": kind, "choices": [choice]})
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event({**head, "object": kind, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, payload: dict) -> None:
        self.wfile.write(f"data: {json.dumps(payload)}\n\n".encode())
        self.wfile.flush()

    def _metrics(self) -> str:
        """Under the names of vLLM 0.19 (vllm/v1/metrics/loggers.py) and SGLang 0.5 (metrics_collector.py)."""
        family, took = self.state.family, list(self.state.took)
        label = f'engine="0",model_name="{self.state.names[0]}"'
        lines = []
        for name in ("prompt_tokens", "generation_tokens"):
            value = float(self.state.counts[name])
            lines += [f"# TYPE {family}:{name} counter", f"{family}:{name}_total{{{label}}} {value}"]
        for name, value in zip(GAUGES[family], (float(self.state.running), 0.0, 0.0), strict=False):
            lines += [f"# TYPE {family}:{name} gauge", f"{family}:{name}{{{label}}} {value}"]
        for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"):
            lines.append(f"# TYPE {family}:{name} histogram")
            for bound in (0.01, 0.1, 1.0, 10.0, float("inf")):
                edge = "+Inf" if bound == float("inf") else bound
                count = sum(seconds <= bound for seconds in took)
                lines.append(f'{family}:{name}_bucket{{{label},le="{edge}"}} {float(count)}')
            lines += [f"{family}:{name}_count{{{label}}} {len(took)}", f"{family}:{name}_sum{{{label}}} {sum(took)}"]
        return "\n".join(lines) + "\n"

    def _json(self, status: int, payload: dict) -> None:
        self._send(status, json.dumps(payload).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
