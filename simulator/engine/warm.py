"""Warm starts for tests: a server that has imported what every run imports, and forks once for each run.

Tests start the engine and its program some hundred times, and both import for a second before they do anything.
Where SPARK_WARM_SOCKET names its socket, engine and program are thin clients of it: they hand over their words,
directory, environment, stdin, stdout and stderr, pass signals on, and end as the run ends. Whoever kills a client
kills its run, and with the server all runs end. Without one everything starts as it does for users.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SOCKET = "SPARK_WARM_SOCKET"
IMPORTED = ("simulator.engine.cli", "simulator.engine.operation", "simulator.engine.host", "pydantic.type_adapter")
"""Nothing of components/: each run imports its own folder's, as they are by then."""

NUMBER = struct.Struct("!i")
PR_SET_PDEATHSIG = 1
SERVE = "serve"


def end_with_parent(number: signal.Signals) -> None:
    """This process gets the signal when its parent dies (prctl(2); Linux only, as the simulator is)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


@contextlib.contextmanager
def server(passphrase: str, salt: str) -> Iterator[str]:
    """A server; the value for SOCKET. It has derived the key of this `encryptionsalt`, which takes half a second."""
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": ""}
    root = Path(__file__).parent.parent.parent
    words = [sys.executable, "-m", __name__, SERVE, passphrase, salt]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/socket"
        listener.bind(path)
        # Whoever asks before it has imported everything waits in this queue.
        listener.listen(128)
        process = subprocess.Popen(words, cwd=root, env=environment, stdin=listener.fileno(), start_new_session=True)
        # Its own copy is the last one: once the server has ended, nobody waits in vain.
        listener.close()
        try:
            yield path
        finally:
            process.terminate()
            process.wait()


def argv(module: str) -> list[str]:
    """What starts `python -m MODULE`, warm where there is a server."""
    return [sys.executable, "-m", *([__name__] if SOCKET in os.environ else []), module]


def run(module: str, words: Sequence[str]) -> int:
    """Run `python -m MODULE WORDS` by the server; its exit code. A run that a signal ended ends this process too."""
    order = json.dumps([[module, *words], os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        socket.send_fds(connection, [NUMBER.pack(len(order))], [0, 1, 2])
        connection.sendall(order)
        pid = _number(connection)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: _pass_on(pid, number))
        code = _number(connection)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _number(connection: socket.socket) -> int:
    data = connection.recv(NUMBER.size, socket.MSG_WAITALL)
    if len(data) < NUMBER.size:
        raise SystemExit("the server of warm starts has ended")
    number: int = NUMBER.unpack(data)[0]
    return number


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def serve(listener: socket.socket) -> str:
    """Fork for each connection and tell it how that ended. Returns in forked processes alone: the module to run."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    runs: dict[int, tuple[int, socket.socket]] = {}
    clients: dict[int, int] = {}
    while True:
        # One at a time, for what it closes may be the next one's number; and ends before beginnings.
        fd, _ = poll.poll()[-1]
        if fd == listener.fileno():
            connection, _ = listener.accept()
            if not (pid := os.fork()):
                listener.detach()
                for _, other in runs.values():
                    other.close()
                return _become(connection)
            ended = os.pidfd_open(pid)
            runs[ended], clients[connection.fileno()] = (pid, connection), pid
            poll.register(ended, select.POLLIN)
            # What it says is for the forked process; that it is gone is told in any case.
            poll.register(connection, 0)
        elif fd in clients:
            poll.unregister(fd)
            _pass_on(clients.pop(fd), signal.SIGKILL)
        else:
            pid, connection = runs.pop(fd)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            poll.unregister(fd)
            os.close(fd)
            if clients.pop(connection.fileno(), None):
                poll.unregister(connection)
                with contextlib.suppress(BrokenPipeError):
                    connection.send(NUMBER.pack(code))
            connection.close()


def _become(connection: socket.socket) -> str:
    """Take over all that makes the client's process another one than this."""
    os.setsid()
    end_with_parent(signal.SIGKILL)
    # A shell starts what runs in its background with interrupts ignored, and so the server and what it forks.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    head, files, _, _ = socket.recv_fds(connection, NUMBER.size, 3)
    (module, *words), folder, environment = json.loads(connection.recv(NUMBER.unpack(head)[0], socket.MSG_WAITALL))
    connection.send(NUMBER.pack(os.getpid()))
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *words]
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    return str(module)


def main() -> None:
    """`python -m simulator.engine.warm`: serve PASSPHRASE SALT, listening on stdin, or a client's MODULE WORDS."""
    first, *words = sys.argv[1:]
    # The parent of a client would be the parent of what it starts.
    end_with_parent(signal.SIGTERM)
    if first != SERVE:
        sys.exit(run(first, words))
    for name in IMPORTED:
        importlib.import_module(name)
    from simulator.engine.crypter import Crypter

    Crypter.open(*words)
    gc.collect()
    gc.freeze()
    importlib.import_module(serve(socket.socket(fileno=0))).main()


if __name__ == "__main__":
    main()
