"""What others on the network, and on a Spark, get to see and to do while a stack lives, and afterwards."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import requests

from components import ports
from components.ports import LISTENERS
from ops import doctor, guard, policy
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import Stack, end_container, left_behind, reboot, step

pytestmark = [pytest.mark.e2e, pytest.mark.long]

ODD = "'\"$(id)`\\%#&<>;|*?~{}[]!^"
WORDS = {name: f"Secret-{name}-that-is-hunted" for name in ("api", "hf", "alice", "env")}
SECRETS = {name: f"{ODD}{word}{ODD}" for name, word in WORDS.items()}
KEYED = f"Bearer {SECRETS['api']}"
BEGUN = "/tmp/hunt-began"


class Processes:
    """The command lines of all processes of this machine, containers' included, while it watches."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.is_set():
            self.looks += 1
            self._over.wait(0.05)  # leave the processors to those who are looked at
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if traces(line):
                    self.found.add(line.replace("\0", " "))

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self._over.set()
        self._thread.join()


def traces(text):
    return {name for name, word in WORDS.items() if word in text}


def configure(stack):
    stack.configure(engine="sglang", gateway=True, chat=True, monitoring=True)
    for words in (
        ("apiKey", SECRETS["api"]),
        ("hfToken", SECRETS["hf"]),
        ("--path", "gatewayKeys.alice", SECRETS["alice"]),
        ("--path", "serving.env.TOKEN", SECRETS["env"]),
    ):
        stack("config", "set", "--secret", *words, "--stack", stack.name)


def files_with_traces(spark):
    """Files written since the hunt began, which hold a secret in clear."""
    words = " ".join(f"-e {word}" for word in WORDS.values())
    # A file that Docker puts into a container is of 1970, but its inode is not. /srv is the simulator's.
    new = f"-type f -cnewer {BEGUN} -size -50M"
    find = f"find / '(' -path /proc -o -path /sys -o -path /srv ')' -prune -o {new}"
    found = sparks.on(spark, f"sudo {find} -exec grep -lF {words} {{}} + | sort -u", check=False)
    return found.split()


def listening(spark):
    """(address, port) of every TCP socket that listens on a Spark."""
    found = set()
    for line in sparks.on(spark, "ss -Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.add((address.strip("[]").partition("%")[0], int(port)))
    return found


TABLE = {port: one for one in LISTENERS for port in range(one.port, one.last + 1)}


def is_as_in_the_table(spark, address, port):
    if port not in TABLE:
        # sshd and Docker's own; beside them what the kernel chose for a rank, which is for no other network.
        return port == ports.SSH or address.startswith("127.") or address == spark.fabric_address(0)
    named = TABLE[port].address
    if named.startswith("fabric"):
        return address == spark.fabric_address(0)
    return address.startswith("127.") if "loopback" in named else True


def open_from(other, spark, numbers):
    """Which TCP ports of a Spark another machine on the management network reaches."""
    # What is dropped is not answered.
    program = (
        "import json, socket, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "socket.setdefaulttimeout(3)\n"
        f"reached = lambda port: not socket.socket().connect_ex(('{spark.address}', port))\n"
        "ports = json.load(sys.stdin)\n"
        "found = ThreadPoolExecutor(50).map(reached, ports)\n"
        "print(json.dumps([port for port, is_open in zip(ports, found) if is_open]))"
    )
    return set(json.loads(sparks.on(other, f'python3 -c "{program}"', stdin=json.dumps(sorted(numbers)))))


def test_a_life_with_every_secret_shows_none_of_them(simulated, tmp_path):
    pair = simulated[:2]
    before = [left_behind(spark) for spark in pair]
    for spark in pair:
        sparks.on(spark, f"touch {BEGUN}")
    stack = Stack(tmp_path, "hunted", pair)
    configure(stack)
    try:
        step("up, while every process is looked at")
        with Processes() as processes:
            said = [stack.up().text]
        assert processes.looks > 10
        assert processes.found == set()

        step("the API's key opens it, and none does not")
        models = f"{stack.outputs()['api_base']}/models"
        answers = [requests.get(models, headers=headers, timeout=5) for headers in ({}, {"Authorization": KEYED})]
        assert [answer.status_code for answer in answers] == [401, 200]

        step("what Pulumi says and keeps")
        for words in (("preview", "--diff"), ("preview", "--json"), ("stack", "output", "--json"), ("stack", "export")):
            said.append(stack(*words, "--stack", stack.name).text)
        said += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
        assert [traces(text) for text in said if traces(text)] == []

        step("doctor's report, and the rules of policy/")
        where = Project(stack.folder, stack.environment)
        findings, about = doctor.examine(of(where, stack.name), texts=True)
        doctor.write(tmp_path / "report.json", findings, about)
        assert traces((tmp_path / "report.json").read_text()) == set()
        assert {rule.name for _, rule, _ in policy.examine(where, stack.name)} == {"pinned-images"}

        step("what Docker shows, and the logs")
        for spark in pair:
            shown = sparks.on(spark, "docker ps -aq | xargs docker inspect")
            logs = sparks.on(spark, "for c in $(docker ps -aq); do docker logs $c 2>&1; done; sudo grep -rh . /var/log")
            assert traces(shown) == set()
            assert traces(logs) == set()

        step("files: in the containers alone")
        for spark in pair:
            assert [path for path in files_with_traces(spark) if not path.startswith("/var/lib/docker/")] == []
        assert files_with_traces(pair[0]), "nothing was hunted for"

        step("the engine has them all the same")
        server = stack.container("server")
        environment = sparks.on(
            pair[1], f"docker exec {server} sh -c 'cat /proc/[0-9]*/environ' | tr '\\0' '\\n' | grep ^TOKEN= | sort -u"
        )
        assert environment == f"TOKEN={SECRETS['env']}\n"
    finally:
        stack.destroy()

    step("nothing is left, in any file")
    assert [files_with_traces(spark) for spark in pair] == [[], []]
    for spark in pair:
        sparks.on(spark, f"rm {BEGUN}")
    assert [left_behind(spark) for spark in pair] == before


BESIDE = {"monitoring": True, "gateway": True, "chat": True, "gatewayKeys": {"alice": "sk-of-alice-0123456789"}}
VARIANTS = {
    "sglang": {"engine": "sglang"},
    "vllm": {"serving": {"executor": "mp"}},
    "ray": {"ray": {"dashboard": True}},
    "trtllm-mpi": {"engine": "trtllm", "serving": {"launcher": "mpi"}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_whatever_listens_is_in_the_table_on_its_address_and_no_more_is_reached_from_outside(
    name, simulated, third, tmp_path
):
    pair, other = simulated[:2], third
    before = {spark.name: listening(spark) for spark in pair}
    stack = Stack(tmp_path, name, pair, **{**VARIANTS[name], **{k: v for k, v in BESIDE.items() if k != "gatewayKeys"}})
    stack("config", "set", "--secret", "--path", "gatewayKeys.alice", "sk-of-alice-0123456789", "--stack", name)
    try:
        step("up")
        stack.up()
        step("what listens")
        for spark in pair:
            found = listening(spark)
            new = found - before[spark.name]
            assert new
            assert sorted(one for one in new if not is_as_in_the_table(spark, *one)) == []

            step("what another machine reaches")
            reached = open_from(other, spark, {port for _, port in found})
            assert reached <= {ports.SSH, *(port for port, one in TABLE.items() if "all" in one.address)}
        if name == "ray":
            step("Ray's dashboard")
            assert "2.55" in sparks.on(pair[0], f"curl -sf http://127.0.0.1:{ports.RAY_DASHBOARD}/api/version")
    finally:
        stack.destroy()


OF_RANKS = (ports.SWARM, 40123)
"""For the Sparks alone: one that no engine of these tests needs, and one that the kernel might choose."""

LISTEN = (
    "import socket, threading\n"
    f"held = [socket.create_server(('', port)) for port in {OF_RANKS}]\n"
    "threading.Event().wait()"
)
"""On every address, as torch does with its rendezvous, which the stand-ins do not have."""


@pytest.mark.parametrize("name", ["sglang", "ray", "trtllm-mpi"])
def test_with_the_guard_another_machine_reaches_ssh_and_what_is_for_others_alone(name, simulated, third, tmp_path):
    pair, other = simulated[:2], third
    stack = Stack(tmp_path, name, pair, **VARIANTS[name], monitoring=True, chat=True)
    outside = {ports.SSH, *(port for port, one in TABLE.items() if "all" in one.address and not one.inside)}

    def listen():
        for spark in pair:
            sparks.on(spark, f'nohup python3 -c "{LISTEN}" >/dev/null 2>&1 </dev/null & echo $! > /tmp/listener')

    def more_than_wanted():
        """What is reached and is for the Sparks alone, of each."""
        found = [open_from(other, spark, {port for _, port in listening(spark)}) for spark in pair]
        return [sorted(reached - outside) for reached in found]

    def tables():
        """Of nftables, and what of ours is in /etc."""
        listed = "sudo nft list tables; ls /etc /etc/systemd/system | grep dgx-spark"
        return [sparks.on(spark, listed, check=False) for spark in pair]

    try:
        stack.up()
        listen()
        where, before = of(Project(stack.folder, stack.environment), stack.name), tables()
        step("without it")
        assert all(set(OF_RANKS) <= set(found) for found in more_than_wanted())
        try:
            step("with it")
            guard.setup_guard(where, lambda _question: True)
            assert more_than_wanted() == [[], []]
            step("from the fabric all is reached, and what is for others from everywhere")
            for port in OF_RANKS:
                sparks.on(pair[1], f"timeout 5 bash -c '</dev/tcp/{pair[0].fabric_address(0)}/{port}'")
            assert ports.CHAT in open_from(other, pair[0], {ports.CHAT})
            step("the server is started again, and its ranks find each other")
            end_container(pair[0], stack.container("server"))
            stack.comes_back()
            step("a reboot")
            reboot(*pair)
            listen()
            assert more_than_wanted() == [[], []]
            stack.comes_back()
            findings = [one for one in doctor.examine(where)[0] if one.check == "guard"]
            assert [one.state for one in findings] == ["ok", "ok"]
        finally:
            step("taken back")
            guard.setup_guard(where, lambda _question: True, undo=True)
        assert tables() == before
        assert all(set(OF_RANKS) <= set(found) for found in more_than_wanted())
    finally:
        for spark in pair:
            sparks.on(spark, "kill $(cat /tmp/listener); rm -f /tmp/listener", check=False)
        stack.destroy()


def test_the_key_that_copies_weights_is_of_no_other_use_to_anybody(simulated, third, tmp_path):
    head, second, other = *simulated[:2], third
    stack = Stack(tmp_path, "copies", [head, second], engine="sglang")
    try:
        stack.up()
        key = "~/.local/state/dgx-spark/organization.dgx-spark.copies/copy_key"
        options = "-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        login = f"ssh {options} -i {key} nvidia@{head.fabric_address(0)}"

        step("commands, a terminal, forwarding: from its own Spark")
        for attempt in (
            f"{login} id",
            f"{login} -tt bash",
            f"{login} cat .ssh/authorized_keys",
            f"{login} -W 127.0.0.1:22",
            f"timeout 5 {login} -N -o ExitOnForwardFailure=yes -R 19999:127.0.0.1:22",
            f"echo get .ssh/authorized_keys | sftp {options} -i {key} nvidia@{head.fabric_address(0)}",
            f"rsync -e 'ssh {options} -i {key}' nvidia@{head.fabric_address(0)}:/etc/passwd /tmp/passwd",
            f"rsync -e 'ssh {options} -i {key}' /etc/passwd nvidia@{head.fabric_address(0)}:passwd",
        ):
            said = sparks.on(second, f"{attempt} 2>&1 </dev/null; echo code=$?", check=False)
            # 124: it was let in, and stayed.
            assert not said.endswith(("code=0\n", "code=124\n")), (attempt, said)
            assert "uid=" not in said
            assert "root:" not in said

        step("the same key, from elsewhere")
        sparks.on(other, "umask 077; cat > /tmp/stolen", stdin=sparks.on(second, f"cat {key}"))
        for address in (head.fabric_address(0), head.address):
            stolen = f"ssh {options} -i /tmp/stolen nvidia@{address} rsync --server --sender -lDtpre.iLsfxCIvu . ."
            said = sparks.on(other, f"{stolen} 2>&1 </dev/null; echo code=$?", check=False)
            assert "Permission denied" in said, said
        sparks.on(other, "rm /tmp/stolen")
    finally:
        stack.destroy()
