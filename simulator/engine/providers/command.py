"""command:local:Command and command:remote:Command, as pulumi-command 1.2 has them.

Remote commands go over OpenSSH, one connection each, as the real provider opens one each.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from typing import IO, Any

from simulator.engine.providers import Canceled, Diff, Log, Old, ProviderError, differ, differences
from simulator.engine.values import Properties


class Running:
    """Processes under way, so that an interrupt can end them."""

    def __init__(self) -> None:
        # A second interrupt comes by a signal, maybe while the first one holds it.
        self._lock = threading.RLock()
        self._processes: set[subprocess.Popen[str]] = set()
        self.canceled = False

    def add(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.add(process)
            if self.canceled:
                self._end(process)

    def remove(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.discard(process)

    def cancel(self, number: signal.Signals = signal.SIGTERM) -> None:
        with self._lock:
            self.canceled = True
            for process in self._processes:
                self._end(process, number)

    @staticmethod
    def _end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


RUNNING = Running()


class Said:
    """What a process says on both of its streams, passed on line by line and kept."""

    def __init__(self, process: subprocess.Popen[str], log: Log, logged: str) -> None:
        self._log, self._logged = log, logged.lower()
        self._lines: list[tuple[str, str]] = []
        streams = {"stdout": process.stdout, "stderr": process.stderr}
        self._readers = [threading.Thread(target=self._read, args=one) for one in streams.items()]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append((name, line))
            if name in self._logged:
                self._log(line.rstrip("\n"))

    def join(self) -> None:
        for reader in self._readers:
            reader.join()

    def of(self, *names: str) -> str:
        return "".join(line for name, line in self._lines if name in names)


def execute(
    argv: list[str],
    shown: str,
    inputs: Properties,
    log: Log,
    environment: dict[str, str] | None = None,
    ended: str = "exit status",
) -> dict[str, str]:
    """Run it; stdout and stderr less one trailing newline. Raises ProviderError on a non-zero exit.

    ended   the words before the exit code: Go's own here, its SSH client's there
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=inputs.get("dir"),
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    RUNNING.add(process)
    said = Said(process, log, inputs.get("logging", "stdoutAndStderr"))
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(inputs.get("stdin") or "")
        process.stdin.close()
    code = process.wait()
    said.join()
    RUNNING.remove(process)
    if RUNNING.canceled:
        raise Canceled("canceled")
    if code:
        every = said.of("stdout", "stderr")
        raise ProviderError(f'{ended} {code}: running "{shown}":\n{every}'.rstrip())
    return {name: said.of(name).removesuffix("\n") for name in ("stdout", "stderr")}


class Command:
    """What local and remote commands share: run again on any change, replaced on new triggers."""

    computed = ("stdout", "stderr")
    sees_secrets = True

    def check(self, inputs: Properties) -> Properties:
        return {"addPreviousOutputInEnv": True, **inputs}

    def diff(self, old: Old, new: Properties) -> Diff:
        changes = differences(old.inputs, new)
        # The list as a whole; what becomes of its elements the SDK asks for (replaceOnChanges).
        return differ(changes, {"triggers"} if ("triggers",) in changes else ())

    def create(self, new: Properties, config: Properties, log: Log) -> tuple[str, Properties]:
        ran = self.run(new["create"], new, log) if new.get("create") else {"stdout": "", "stderr": ""}
        return f"{self.prefix}{uuid.uuid4().hex[:8]}", {**new, **ran}

    def update(self, old: Old, new: Properties, config: Properties, log: Log) -> Properties:
        text = new.get("update") or new.get("create")
        return {**new, **(self.run(text, new, log) if text else {})}

    def read(self, old: Old, config: Properties) -> Properties | None:
        return old.outputs  # a command can't be looked at: no drift is ever seen

    def delete(self, old: Old, config: Properties, log: Log) -> None:
        if old.inputs.get("delete"):
            self.run(old.inputs["delete"], old.inputs, log)

    prefix = ""

    def run(self, text: str, inputs: Properties, log: Log) -> dict[str, str]:
        raise NotImplementedError


class LocalCommand(Command):
    def run(self, text: str, inputs: Properties, log: Log) -> dict[str, str]:
        interpreter = inputs.get("interpreter") or ["/bin/sh", "-c"]
        return execute([*interpreter, text], text, inputs, log, inputs.get("environment"))


ALGORITHMS = {
    "KexAlgorithms": "curve25519-sha256,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
    "diffie-hellman-group14-sha256,diffie-hellman-group14-sha1",
    "Ciphers": "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,"
    "aes256-ctr",
    "MACs": "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1,"
    "hmac-sha1-96",
}
"""What Go's SSH offers, in its order: nothing of OpenSSH's sntrup761, which a Spark may be set to insist on. Less
mlkem768x25519-sha256, which OpenSSH knows since 9.9 only. Source: golang.org/x/crypto 0.48, ssh/common.go."""

_DEFAULTS = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
"""Of a connection, and of its proxy."""


class RemoteCommand(Command):
    def check(self, inputs: Properties) -> Properties:
        connection = inputs["connection"]
        filled = {**_DEFAULTS, **connection} if isinstance(connection, dict) else connection
        return {**super().check(inputs), "connection": filled}

    def run(self, text: str, inputs: Properties, log: Log) -> dict[str, str]:
        if inputs.get("environment"):
            raise ProviderError("ssh: setenv failed: the Sparks' sshd accepts no variables (AcceptEnv)")
        with ssh(inputs["connection"]) as argv:
            return execute([*argv, text], text, inputs, log, ended="Process exited with status")


@contextlib.contextmanager
def ssh(connection: dict[str, Any]) -> Iterator[list[str]]:
    """OpenSSH's words for a `connection`, with its private keys in files for as long as they are needed.

    As strict as the real provider, which has Go's SSH and resolver: no ssh_config, names from /etc/hosts and DNS
    alone, no passphrases. Source: pulumi-command, provider/pkg/provider/remote/connection.go.
    """
    with tempfile.TemporaryDirectory() as folder:
        proxy = connection.get("proxy")
        if not proxy:
            _look_up(connection)
            yield ["ssh", *_words(connection, f"{folder}/key")]
            return
        _look_up(proxy)
        # The proxy resolves the host.
        jump = shlex.join(["ssh", *_words({**_DEFAULTS, **proxy}, f"{folder}/proxy-key", "-W", "[%h]:%p")])
        yield ["ssh", *_words(connection, f"{folder}/key", "-o", f"ProxyCommand={jump}")]


def _look_up(connection: dict[str, Any]) -> None:
    host = connection["host"]
    if (
        ":" not in host
        and subprocess.run(["getent", "-s", "files dns", "ahosts", host], capture_output=True).returncode
    ):
        raise ProviderError(
            f"after {connection['dialErrorLimit']} failed attempts: dial tcp: lookup {host}: no such host"
        )


def _words(connection: dict[str, Any], key: str, *more: str) -> list[str]:
    """`key`: a path that is free."""
    host = connection["host"]
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(connection["perDialTimeout"]),
        "ConnectionAttempts": str(max(1, connection["dialErrorLimit"])),
        "LogLevel": "ERROR",
        # As Go's connections notice that nobody is there any more: by TCP, after 15 s and 9 times 15 s without a word.
        # Source: golang.org/x/crypto/ssh, Dial; Go's net, KeepAliveConfig.
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "10",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        **ALGORITHMS,
    }
    if connection.get("hostKey"):
        if not connection["hostKey"].startswith(("ssh-", "ecdsa-")):
            raise ProviderError("failed to parse host key: ssh: no key found")
        known = f"/bin/echo {host} {connection['hostKey']}"
        options |= {"StrictHostKeyChecking": "yes", "HostKeyAlias": host, "KnownHostsCommand": known}
    if connection.get("privateKey"):
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
            stream.write(connection["privateKey"])
        if subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", key], capture_output=True).returncode:
            raise ProviderError("ssh: this private key is passphrase protected")
        options |= {"IdentityFile": key, "IdentitiesOnly": "yes", "IdentityAgent": "none"}
    elif connection.get("agentSocketPath"):
        options["IdentityAgent"] = connection["agentSocketPath"]
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["-F", "none", *words, *more, "-p", str(int(connection["port"])), f"{connection['user']}@{host}"]
