"""`./spark setup-guard`: rules that let what Sparks say among themselves in by the fabric alone."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from components import ports
from components.facts import fabric
from ops import doctor, guard
from ops.guard import Wall
from tests.unit.build import ON_RAY, facts, settings

CHOSEN = (32768, 60999)


def wall(more=(), **config):
    chosen = settings(2, **config)
    sparks = {f"spark-{n}": facts(n) for n in (1, 2)}
    links = fabric.detect(chosen, sparks)[0]
    return guard.wall(chosen, chosen.nodes[0], sparks["spark-1"], links["spark-1"], CHOSEN, more)


def within(port, ranges):
    return any(first <= port <= last for first, last in ranges)


def test_the_rules_of_a_pair_to_the_letter():
    one = Wall(("lo", "enp1s0f1np1"), ((22, 22), (8000, 8000)), ((2377, 2377), (32768, 60999)))
    assert guard.rules(one) == (
        "# Written by ./spark setup-guard, undone with --undo.\n"
        "table inet dgx_spark\n"
        "delete table inet dgx_spark\n"
        "table inet dgx_spark {\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority filter - 5; policy accept;\n"
        '\t\tiifname { "lo", "enp1s0f1np1" } accept\n'
        "\t\tmeta l4proto { tcp, udp } th dport { 22, 8000 } accept\n"
        "\t\tmeta l4proto { tcp, udp } th dport { 2377, 32768-60999 } ct state new counter drop\n"
        "\t}\n"
        "}\n"
    )


@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft here; the simulated Sparks have it")
def test_nft_takes_the_rules(tmp_path):
    path = tmp_path / "rules"
    path.write_text(guard.rules(wall()))
    subprocess.run(["nft", "--check", "-f", str(path)], check=True)


def test_what_is_for_the_sparks_alone_is_closed_and_ssh_and_the_apis_are_not():
    one = wall(monitoring=True, chat=True)
    for port in (ports.VLLM_RENDEZVOUS, ports.SGLANG_RENDEZVOUS, ports.SWARM, 7946, ports.RAY, ports.RANKS, 2233, 9100):
        assert within(port, one.closed), port
        assert not within(port, one.opened), port
    for port in (22, ports.VLLM, ports.GRAFANA, ports.CHAT):
        assert within(port, one.opened), port
        assert not within(port, one.closed), port


def test_both_halves_of_the_port_are_the_fabric_and_the_management_port_is_not():
    assert wall().interfaces == ("lo", "enp1s0f1np1", "enP2p1s0f1np1")


def test_rays_port_is_closed_where_it_was_moved_to():
    on_ray = wall(serving=ON_RAY, ray={"port": 6399})
    assert within(6399, on_ray.closed)
    assert not {6399, *ports.RAY_AGENTS} & {port for first, last in on_ray.opened for port in range(first, last + 1)}
    assert not within(6379, on_ray.closed)


@pytest.mark.parametrize(
    "port", [ports.MPI, ports.MPI_PORTS[-1], ports.RAY_AGENTS[-1], ports.RAY_WORKERS[-1], ports.PERFTEST + 4]
)
def test_every_port_of_several_that_are_for_the_sparks_alone_is_closed(port):
    assert within(port, wall().closed)


def test_an_api_or_an_sshd_among_the_ports_that_the_kernel_chooses_stays_open():
    one = wall(serving={"port": 40000}, more=[41641])
    assert within(40000, one.opened)
    assert within(41641, one.opened)


@pytest.mark.parametrize(
    ("ranges", "apart"),
    [
        ([(5, 9), (1, 2)], ((1, 2), (5, 9))),
        ([(1, 5), (3, 9)], ((1, 9),)),
        ([(1, 9), (3, 5)], ((1, 9),)),
        ([(1, 2), (3, 4)], ((1, 4),)),
        ([], ()),
    ],
)
def test_ranges_that_overlap_or_touch_become_one(ranges, apart):
    assert guard.merged(ranges) == apart


def test_what_others_would_lose_is_named_and_an_engines_own_ports_are_not():
    found = facts(1, listening=[22, 2377, 33000, 8000])
    assert guard.shut(wall(), guard.others(found, CHOSEN)) == [2377, 33000]
    labels = {"dgx-spark.stack": "x", "dgx-spark.ports": "2377"}
    ours = {"id": "1", "name": "n", "running": True, "labels": labels}
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": [ours]}
    served = facts(1, listening=[22, 2377, 33000, 8000], docker=docker)
    assert guard.shut(wall(), guard.others(served, CHOSEN)) == []


def test_what_others_would_lose_by_udp_is_named_also_while_an_engine_runs_which_speaks_tcp():
    """mDNS, whose port is none of the closed; Swarm's members; Tailscale; WireGuard."""
    found = facts(1, listening=[22, 33000], listening_udp=[5353, 7946, 41641, 51820])
    assert guard.shut(wall(), guard.others(found, CHOSEN)) == [7946, 33000, 41641, 51820]
    assert guard.shut(wall(more=[41641]), guard.others(found, CHOSEN)) == [7946, 33000, 51820]
    ours = {"id": "1", "name": "n", "running": True, "labels": {"dgx-spark.stack": "x", "dgx-spark.ports": "7946"}}
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": [ours]}
    served = found.model_copy(update={"docker": found.docker.model_validate(docker)})
    assert guard.shut(wall(), guard.others(served, CHOSEN)) == [41641, 51820]


# On the Spark


@pytest.fixture
def spark(host):
    """nft and systemctl note what they are asked; systemctl says that a unit is active where its file is there."""
    host.put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
    for folder in ("etc/dgx-spark", "etc/systemd/system"):
        (host.root / folder).mkdir(parents=True)
    host.program("nft", f'echo "nft $@" >> {host.root}/asked\n! grep -qs wrong "$3"')
    unit = f"{host.root}/etc/systemd/system/dgx-spark-guard.service"
    host.program("systemctl", f'[ "$1" != is-active ] || exec test -e {unit}\necho "systemctl $@" >> {host.root}/asked')
    return host


def asked(spark):
    path = spark.root / "asked"
    lines = path.read_text().replace(str(spark.root), "").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_rules_are_checked_written_and_loaded_now_and_at_every_boot_and_taken_back(spark):
    before = spark.json("guard.py", text="rules\n", write=True)
    assert before == {"text": "", "active": False, "chosen": [32768, 60999]}
    assert asked(spark) == [
        "nft --check -f /etc/dgx-spark/guard.nft.new",
        "systemctl daemon-reload",
        "systemctl enable dgx-spark-guard.service",
        "systemctl restart dgx-spark-guard.service",
    ]
    unit = (spark.root / "etc/systemd/system/dgx-spark-guard.service").read_text()
    assert f"ExecStart=nft -f {spark.root}/etc/dgx-spark/guard.nft\n" in unit
    assert "ExecStop=nft delete table inet dgx_spark\n" in unit

    assert spark.json("guard.py", text="", write=False) == {"text": "rules", "active": True, "chosen": [32768, 60999]}
    assert asked(spark) == []
    spark.json("guard.py", text="", write=True)
    assert "systemctl disable --now dgx-spark-guard.service" in asked(spark)
    assert spark.json("guard.py", text="", write=False) == {"text": "", "active": False, "chosen": [32768, 60999]}


def test_rules_that_nft_refuses_leave_the_former_ones(spark):
    spark.json("guard.py", text="rules\n", write=True)
    asked(spark)
    done = spark.run("guard.py", "apply", text="wrong\n", write=True)
    assert done.returncode == 1
    assert "nft --check" in done.stderr
    assert asked(spark) == ["nft --check -f /etc/dgx-spark/guard.nft.new"]
    assert [path.name for path in (spark.root / "etc/dgx-spark").iterdir()] == ["guard.nft"]
    assert spark.json("guard.py", text="", write=False)["text"] == "rules"


def test_without_nft_the_package_is_named(spark):
    (spark.programs / "nft").unlink()
    spark.shadow("nft")
    assert "sudo apt install nftables" in spark.run("guard.py", "apply", text="rules\n", write=True).stderr


@pytest.mark.parametrize(("text", "active", "state"), [("r", True, "ok"), ("r", False, "note"), ("", False, "note")])
def test_doctor_says_whether_a_spark_is_guarded(text, active, state):
    found = doctor.walled("spark-1", {"text": text, "active": active, "chosen": [1, 2]})
    assert (found.state, found.fix) == (state, "" if state == "ok" else "./spark setup-guard")


def test_nothing_is_to_be_changed_where_the_same_rules_are_in_force():
    there = json.loads('{"text": "r", "active": true, "chosen": [1, 2]}')
    assert guard.holds(there, "r\n")
    assert not guard.holds({**there, "active": False}, "r\n")
    assert not guard.holds(there, "")
    assert guard.holds({**there, "text": "", "active": False}, "")
