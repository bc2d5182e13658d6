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

from shared.job import job
from shared.links import PERFTEST

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


def perftest(inputs: Bandwidth, tool: str, port: int, device: str) -> list:
    argv = [tool, f"--ib-dev={device}", f"--port={port}", "--CPU-freq"]
    argv += [f"--gid-index={inputs['gid_indexes'][device]}"] if device in inputs["gid_indexes"] else []
    if tool == "ib_write_bw":
        argv += ["--report_gbits", f"--duration={inputs['seconds']}", "--size=1048576"]
    return [*argv, inputs["peer"]] if inputs["role"] == "measure" else argv


def run_perftest(inputs: Bandwidth, tool: str, port: int, devices: list) -> list:
    """Last rows of the tables that perftest prints, one per device, as numbers."""
    with ThreadPoolExecutor(len(devices)) as pool:
        asked = [pool.submit(row, perftest(inputs, tool, port + n, device), inputs) for n, device in enumerate(devices)]
        if inputs["role"] == "serve":
            emit(ready=tool)
        return [one.result() for one in asked]


def row(argv: list, inputs: Bandwidth) -> list:
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=inputs["seconds"] + PATIENCE)
        lines = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
        if done.returncode == 0 and lines:
            return [float(word) for word in lines[-1]]
        # perftest's client does not wait for its server.
        if inputs["role"] == "serve" or time.monotonic() > deadline:
            said = (done.stdout + done.stderr).strip().splitlines()
            sys.exit(f"{argv[0]}: {' | '.join(said[-3:])}")
        time.sleep(0.2)


def by_rdma(inputs: Bandwidth) -> None:
    # Columns: #bytes #iterations, then peak and average; minimum, maximum and typical. Source: perftest's README.
    widths = run_perftest(inputs, "ib_write_bw", inputs["port"], inputs["devices"])
    behind = inputs["port"] + len(inputs["devices"])
    with_one = {**inputs, "role": "again"} if inputs["role"] == "serve" else inputs
    (delay,) = run_perftest(with_one, "ib_write_lat", behind, inputs["devices"][:1])
    if inputs["role"] == "measure":
        emit(gbps=sum(row[3] for row in widths), latency_us=delay[4])


def serve_tcp(inputs: Bandwidth) -> None:
    with socket.create_server((inputs["address"], inputs["port"]), backlog=STREAMS + 1) as listener:
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


def connect(inputs: Bandwidth) -> socket.socket:
    return socket.create_connection(
        (inputs["peer"], inputs["port"]), timeout=PATIENCE, source_address=(inputs["address"], 0)
    )


def pour(inputs: Bandwidth, results: multiprocessing.Queue[list[float]]) -> None:
    block = bytes(BLOCK)
    with connect(inputs) as connection:
        deadline = time.monotonic() + inputs["seconds"]
        while time.monotonic() < deadline:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(PATIENCE)
        results.put(json.loads(connection.makefile().read()))


def latency(inputs: Bandwidth) -> float:
    """Half a round trip, microseconds."""
    took = []
    with connect(inputs) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            took.append(time.perf_counter() - began)
    return sorted(took)[ROUNDS // 2] / 2 * 1e6


def measure_tcp(inputs: Bandwidth) -> None:
    delay = latency(inputs)
    results: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    writers = [multiprocessing.Process(target=pour, args=(inputs, results)) for _ in range(STREAMS)]
    for writer in writers:
        writer.start()
    found = [results.get(timeout=inputs["seconds"] + PATIENCE) for _ in writers]
    for writer in writers:
        writer.join()
    emit(gbps=sum(count * 8 / seconds / 1e9 for count, seconds in found), latency_us=delay)


def main() -> None:
    # A child must find the functions here, which were never in a file: only a forked one does.
    with contextlib.suppress(RuntimeError):
        multiprocessing.set_start_method("fork")
    inputs: Bandwidth = job()[1]
    if inputs["role"] == "ask":
        emit(perftest=all(map(shutil.which, PERFTEST)))
    elif inputs["tool"] == "perftest":
        by_rdma(inputs)
    elif inputs["role"] == "serve":
        serve_tcp(inputs)
    else:
        measure_tcp(inputs)


try:
    main()
except OSError as error:
    sys.exit(f"the measurement failed: {error}")
