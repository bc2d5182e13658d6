"""From a Spark out of the box to a stack file, keys and addresses."""

from __future__ import annotations

import pytest

from components.settings import Ssh
from ops import setup
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import of
from simulator import sparks
from simulator.layout import KEY, ROOT, USER
from tests.e2e.conftest import step

pytestmark = pytest.mark.e2e

LOGIN = Ssh(user=USER, privateKeyFile=str(KEY))


def yes(_question):
    return True


def test_init_writes_a_stack_file_that_previews(alone, third, capsys):
    step("init, in place of the example that came with the program")
    example = (ROOT / "Pulumi.head-worker.yaml").read_text()
    (alone.folder / "Pulumi.fresh.yaml").write_text(example)
    setup.init(alone.folder, "fresh", [third.address], LOGIN, yes, chosen=("sglang", "gpt-oss-20b"))
    out = capsys.readouterr().out
    shown = sparks.on(third, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert f"shows the host key {shown}" in out
    assert "NVIDIA GB10, 120 GiB" in out

    step("the file is what was shown")
    found = of(Project(alone.folder, alone.environment), "fresh").settings
    assert found.ssh.host_keys == {"spark-1": sparks.host_key(third)}
    assert (found.engine, found.model, found.head.host) == ("sglang", "gpt-oss-20b", third.address)

    step("a second init leaves it")
    with pytest.raises(CommandError, match=r"Pulumi\.fresh\.yaml is there already"):
        setup.init(alone.folder, "fresh", [third.address], LOGIN, yes)


@pytest.mark.parametrize(
    ("host", "user", "words"),
    [
        ("10.77.0.99", USER, "10.77.0.99: no SSH server answers on port 22"),
        (None, "somebody", "does not let somebody in .*nothing was written; `./spark setup-ssh`"),
    ],
)
def test_init_that_can_not_look_at_a_spark_writes_nothing(alone, third, host, user, words):
    with pytest.raises(CommandError, match=f"(?s){words}"):
        setup.init(alone.folder, "fresh", [host or third.address], Ssh(user=user, privateKeyFile=str(KEY)), yes)
    assert not (alone.folder / "Pulumi.fresh.yaml").exists()


def test_host_keys_that_are_not_confirmed_are_not_pinned(alone, third):
    with pytest.raises(CommandError, match="nothing was written"):
        setup.init(alone.folder, "fresh", [third.address], LOGIN, lambda _question: False)


def test_an_account_without_docker_is_put_into_the_group(alone, third, tmp_path, capfd):
    step("the preview says what is missing")
    sparks.inside(third, "gpasswd", "-d", USER, "docker")
    assert "may not use Docker" in alone.refusal()

    step("setup-ssh")
    setup.setup_ssh(setup.at([third.address], LOGIN), LOGIN, yes, known_hosts=str(tmp_path / "known_hosts"))
    assert "may use Docker from the next login on" in capfd.readouterr().out
    assert alone.preview()

    step("and again")
    setup.setup_ssh(setup.at([third.address], LOGIN), LOGIN, yes, known_hosts=str(tmp_path / "known_hosts"))
    assert "logs in, and may use Docker\n" in capfd.readouterr().out


def test_both_twins_get_addresses_and_mtu_and_lose_them_again(alone, third, capsys):
    where = of(Project(alone.folder, alone.environment), alone.name)
    own, former = ("192.168.187.0/24", "192.168.188.0/24"), sparks.on(third, "ip -o -4 addr")
    sparks.on(third, "sudo ip link set enP2p1s0f1np1 mtu 1500")

    step("not confirmed: only shown")
    setup.setup_network(where, lambda _question: False, subnets=own)
    assert "+      - 192.168.187.11/24" in capsys.readouterr().out
    assert sparks.on(third, "ip -o -4 addr") == former, "only shown"

    step("confirmed: addresses and MTU")
    setup.setup_network(where, yes, subnets=own)
    now = sparks.on(third, "ip -o -4 addr")
    assert "enp1s0f1np1    inet 192.168.187.11/24" in now
    assert "enP2p1s0f1np1    inet 192.168.188.11/24" in now
    assert "mtu 9000" in sparks.on(third, "ip link show enP2p1s0f1np1")

    step("a second time: nothing to change")
    capsys.readouterr()
    setup.setup_network(where, yes, subnets=own)
    assert "nothing to change" in capsys.readouterr().out

    step("undone")
    setup.setup_network(where, yes, undo=True)
    assert sparks.on(third, "ip -o -4 addr") == former
    assert "60-dgx-spark" not in sparks.on(third, "ls /etc/netplan", check=False)


@pytest.mark.parametrize(
    ("subnets", "words"),
    [
        (["192.168.1.0/24", "192.168.1.0/24"], "a subnet each"),
        (["192.168.1.0/28", "192.168.2.0/28"], "too small for 4 Sparks"),
        (["nonsense"], "nonsense is no subnet"),
    ],
)
def test_subnets_that_can_not_work_are_refused(subnets, words):
    with pytest.raises(CommandError, match=words):
        setup.addresses(4, subnets)
