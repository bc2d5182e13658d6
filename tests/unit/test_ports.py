"""The table of ports: whatever listens is in it, on the address that it names."""

import ast
from pathlib import Path

import pytest

from components import ports
from components.plan.checks import used_ports
from components.ports import LISTENERS
from ops import trust
from tests.unit.build import plan, settings

KEYS = {"gatewayKeys": {"alice": "sk-of-alice-0123456789"}}
BESIDE = {"monitoring": True, "gateway": True, "chat": True, **KEYS}
LAYOUTS = {
    "one Spark": (1, {}),
    "vLLM": (2, {}),
    "vLLM on Ray": (2, {"serving": {"executor": "ray"}}),
    "SGLang": (2, {"engine": "sglang"}),
    "TensorRT-LLM on Swarm": (2, {"engine": "trtllm"}),
    "TensorRT-LLM by MPI": (2, {"engine": "trtllm", "serving": {"launcher": "mpi"}}),
}
TABLE = {one.port: one for one in LISTENERS}
EVERY = {port for one in LISTENERS for port in range(one.port, one.last + 1)}
FABRIC = {"192.168.177.1", "192.168.177.2"}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    count, config = LAYOUTS[request.param]
    chosen = settings(count, **{**config, **BESIDE})
    return chosen, plan(chosen)


def containers(made):
    on_ray = (made.ray.head, *made.ray.workers) if made.ray else ()
    return [*made.ranks, *on_ray, *made.extras]


def words(container):
    return [*getattr(container, "runner", ()), *container.command, *(container.entrypoint or ())]


def test_every_port_that_is_written_down_anywhere_is_in_the_table():
    tree = ast.parse(Path(ports.__file__).read_text())
    named = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]
    numbers = {getattr(ports, name) for name in named if isinstance(getattr(ports, name), int)}
    assert numbers - {ports.SSH} == TABLE.keys()


def test_whatever_a_layout_listens_on_is_in_the_table(layout):
    chosen, made = layout
    labels = [one.labels.get("dgx-spark.ports", "") for one in containers(made) if hasattr(one, "labels")]
    declared = {int(port) for label in labels for port in label.split(",") if port}
    declared |= {port for one in made.extras for port in one.ports}
    assert declared | {port for _, port in used_ports(chosen)} <= EVERY


def bound(made):
    """Port → addresses to which command lines and environments bind it."""
    found = {}

    def note(port, address):
        found.setdefault(int(port), set()).add(address)

    for one in containers(made):
        said = dict(word.split("=", 1) for word in words(one) if word.startswith("--") and "=" in word)
        if "--address" in said and ":" in said["--address"] and "ray" not in words(one):
            note(said["--address"].rpartition(":")[2], said["--address"].rpartition(":")[0])
        if "--web.listen-address" in said:
            note(said["--web.listen-address"].rpartition(":")[2], said["--web.listen-address"].rpartition(":")[0])
        if "--dashboard-host" in said:
            note(said["--dashboard-port"], said["--dashboard-host"])
        if "--host" in said:
            note(said["--port"], said["--host"])
        if "listen" in words(one):
            note(said["--port"], said["--address"])
        environment = one.environment
        if "GF_SERVER_HTTP_PORT" in environment:
            note(environment["GF_SERVER_HTTP_PORT"], environment["GF_SERVER_HTTP_ADDR"])
        if {"HOST", "PORT"} <= environment.keys():
            note(environment["PORT"], environment["HOST"])
    return found


def test_what_can_be_bound_to_an_address_is_bound_to_that_of_the_table(layout):
    chosen, made = layout
    fabric = FABRIC if len(chosen.nodes) > 1 else set()
    meant = {"fabric": fabric, "loopback": {"127.0.0.1"}, "all": {"0.0.0.0"}}
    found = bound(made)
    assert {ports.PROMETHEUS, ports.NODE_EXPORTER, ports.GRAFANA, ports.GATEWAY, ports.CHAT} <= found.keys()
    for port, addresses in found.items():
        named = TABLE[port].address.partition(", ")[2] or TABLE[port].address
        if named.startswith("fabric;"):
            named = "fabric" if fabric else "loopback"
        assert addresses <= meant[named], (port, addresses)


def test_moving_the_servers_to_loopback_moves_them(layout):
    chosen, _ = layout
    # Beside, which can be bound too.
    serving = {**chosen.serving.model_dump(by_alias=True, exclude_unset=True), "host": "127.0.0.1"}
    moved = settings(len(chosen.nodes), engine=chosen.engine, serving=serving, beside={"host": "127.0.0.1"}, **BESIDE)
    for port, addresses in bound(plan(moved)).items():
        assert "0.0.0.0" not in addresses, port


def test_the_page_has_the_table_as_it_is_here_and_names_tests_that_are_there():
    assert trust.ports() in trust.FILE.read_text(), "run ./spark trust"
    for one in trust.PROPERTIES:
        for test in one.tests:
            file, _, name = test.partition("::")
            assert f"def {name}" in (trust.ROOT / file).read_text(), test
