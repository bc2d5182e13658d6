"""One side of a measurement between two Sparks: bandwidth and latency over the fabric.

By RDMA with perftest (ib_write_bw, ib_write_lat), on all devices at once; else by TCP streams.

stdin   JSON: role (`ask`, `serve` or `measure`), tool (`perftest` or `tcp`), address (own, on the fabric), peer,
        devices, gid_indexes {device: index} (none: perftest's own choice), port (the first of a few), seconds
stdout  ask: {"perftest": bool}
        serve: {"ready": true} when it listens; it ends with the measurement
        measure: {"gbps", "latency_us"}
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import PERFTEST, job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Bandwidth

STREAMS = 8
"""TCP streams at a time: one keeps a core of GB10 busy before it fills the link."""

BLOCK = 1 << 20
ROUNDS = 200
"""Ping-pongs for the latency; the median counts."""

PATIENCE = 20
"""Seconds for the other side to appear."""


def emit(**message: object) -> None:
    print(json.dumps(message), flush=True)


def perftest(given: Bandwidth, tool: str, port: int, device: str) -> list:
    argv = [tool, f"--ib-dev={device}", f"--port={port}", "--CPU-freq"]
    argv += [f"--gid-index={given['gid_indexes'][device]}"] if device in given["gid_indexes"] else []
    if tool == "ib_write_bw":
        argv += ["--report_gbits", f"--duration={given['seconds']}", "--size=1048576"]
    return [*argv, given["peer"]] if given["role"] == "measure" else argv


def run_perftest(given: Bandwidth, tool: str, port: int, devices: list) -> list:
    """Last rows of the tables that perftest prints, one per device, as numbers."""
    with ThreadPoolExecutor(len(devices)) as pool:
        asked = [pool.submit(row, perftest(given, tool, port + n, device), given) for n, device in enumerate(devices)]
        if given["role"] == "serve":
            emit(ready=tool)
        return [one.result() for one in asked]


def row(argv: list, given: Bandwidth) -> list:
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=given["seconds"] + PATIENCE)
        lines = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
        if done.returncode == 0 and lines:
            return [float(word) for word in lines[-1]]
        # perftest's client does not wait for its server.
        if given["role"] == "serve" or time.monotonic() > deadline:
            said = (done.stdout + done.stderr).strip().splitlines()
            sys.exit(f"{argv[0]}: {' | '.join(said[-3:])}")
        time.sleep(0.2)


def by_rdma(given: Bandwidth) -> None:
    # Columns: #bytes #iterations, then peak and average; minimum, maximum and typical. Source: perftest's README.
    widths = run_perftest(given, "ib_write_bw", given["port"], given["devices"])
    behind = given["port"] + len(given["devices"])
    with_one = {**given, "role": "again"} if given["role"] == "serve" else given
    (delay,) = run_perftest(with_one, "ib_write_lat", behind, given["devices"][:1])
    if given["role"] == "measure":
        emit(gbps=sum(row[3] for row in widths), latency_us=delay[4])


def serve_tcp(given: Bandwidth) -> None:
    with socket.create_server((given["address"], given["port"]), backlog=STREAMS + 1) as listener:
        listener.settimeout(PATIENCE)
        emit(ready="tcp")
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while byte := connection.recv(1):
                connection.sendall(byte)
        readers = []
        for _ in range(STREAMS):
            connection, _ = listener.accept()
            readers.append(multiprocessing.Process(target=swallow, args=(connection,)))
            readers[-1].start()
            connection.close()
        for reader in readers:
            reader.join()


def swallow(connection: socket.socket) -> None:
    """Read until the other side ends, then tell how much and how long."""
    buffer, count, began = bytearray(BLOCK), 0, time.monotonic()
    while got := connection.recv_into(buffer):
        count += got
    connection.sendall(json.dumps([count, time.monotonic() - began]).encode())


def connect(given: Bandwidth) -> socket.socket:
    return socket.create_connection(
        (given["peer"], given["port"]), timeout=PATIENCE, source_address=(given["address"], 0)
    )


def pour(given: Bandwidth, results: multiprocessing.Queue[list[float]]) -> None:
    block = bytes(BLOCK)
    with connect(given) as connection:
        deadline = time.monotonic() + given["seconds"]
        while time.monotonic() < deadline:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(PATIENCE)
        results.put(json.loads(connection.makefile().read()))


def latency(given: Bandwidth) -> float:
    """Half a round trip, microseconds."""
    took = []
    with connect(given) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            took.append(time.perf_counter() - began)
    return sorted(took)[ROUNDS // 2] / 2 * 1e6


def measure_tcp(given: Bandwidth) -> None:
    delay = latency(given)
    results: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    writers = [multiprocessing.Process(target=pour, args=(given, results)) for _ in range(STREAMS)]
    for writer in writers:
        writer.start()
    found = [results.get(timeout=given["seconds"] + PATIENCE) for _ in writers]
    for writer in writers:
        writer.join()
    emit(gbps=sum(count * 8 / seconds / 1e9 for count, seconds in found), latency_us=delay)


def main() -> None:
    # A child must find the functions here, which were never in a file: only a forked one does.
    with contextlib.suppress(RuntimeError):
        multiprocessing.set_start_method("fork")
    given: Bandwidth = job()[1]
    if given["role"] == "ask":
        emit(perftest=all(map(shutil.which, PERFTEST)))
    elif given["tool"] == "perftest":
        by_rdma(given)
    elif given["role"] == "serve":
        serve_tcp(given)
    else:
        measure_tcp(given)


try:
    main()
except OSError as error:
    sys.exit(f"the measurement failed: {error}")
