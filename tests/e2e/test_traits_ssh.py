"""Sparks that are reached, and answer, in other ways than a fresh one: each is a trait met in the field."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
import yaml

from ops import look, pulumi, setup
from ops.project import Project
from ops.pulumi import CommandError
from ops.stack import of
from simulator import network, sparks
from simulator.engine import warm
from simulator.layout import BRIDGE, KEY, PASSWORD, USER, Spark, Traits
from tests.e2e.conftest import ROOT, Stack, step

pytestmark = pytest.mark.e2e

OVERLAY = """
for pair in "$1" "$2"; do [ -z "$pair" ] || mount --bind "${pair%%=*}" "${pair##*=}"; done
shift 2
exec "$@"
"""


class Elsewhere(Stack):
    """A stack run on a machine with this ssh_config and these host names: both are seen by its processes alone."""

    ssh_config = ""
    hosts = ""

    @property
    def argv(self) -> tuple[str, ...]:
        config, hosts = self.folder / "ssh_config", self.folder / "hosts"
        config.write_text(self.ssh_config)
        hosts.write_text(f"127.0.0.1 localhost\n{self.hosts}")
        binds = (f"{config}=/etc/ssh/ssh_config", f"{hosts}=/etc/hosts" if self.hosts else "")
        # A warm start would run outside.
        cold = ("env", f"--unset={warm.SOCKET}")
        return (*cold, "unshare", "--mount", "sh", "-ec", OVERLAY, "sh", *binds, *pulumi.chosen().argv)


@pytest.fixture
def elsewhere(third: Spark, tmp_path: Path) -> Iterator[Elsewhere]:
    stack = Elsewhere(tmp_path, "elsewhere", [third])
    yield stack
    stack.destroy()


def reach(stack: Elsewhere, spark: Spark, host: str, **ssh: object) -> None:
    """The stack file names the Spark so, and nothing else of the login than `ssh`."""
    keys = {spark.name: sparks.host_key(spark)}
    path = stack.folder / f"Pulumi.{stack.name}.yaml"
    document = yaml.safe_load(path.read_text())
    document["config"]["dgx-spark:nodes"] = [{"name": spark.name, "host": host}]
    document["config"]["dgx-spark:ssh"] = {"hostKeys": keys, **ssh}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


LOGIN = f"  User {USER}\n  IdentityFile {KEY}\n  IdentitiesOnly yes\n"
GIVEN = {"user": USER, "privateKeyFile": str(KEY)}


@pytest.mark.long
def test_an_alias_of_ssh_config_with_another_port_serves(elsewhere, third):
    other = replace(third, traits=Traits(ssh_port=2222))
    sparks.reinstall(other)
    try:
        elsewhere.ssh_config = f"Host my-spark\n  HostName {third.address}\n  Port 2222\n{LOGIN}"
        reach(elsewhere, third, "my-spark")
        elsewhere.up()
        outputs = elsewhere.outputs()
        assert outputs["api_base"] == f"http://{third.address}:8000/v1"
        assert elsewhere.complete()["choices"]
        assert elsewhere.is_clean()
        elsewhere.destroy()
    finally:
        sparks.reinstall(third)


@pytest.mark.long
def test_a_spark_behind_another_host_is_reached_through_it(elsewhere, third, simulated):
    known = elsewhere.folder / "known_hosts"
    known.write_text(f"{simulated[0].address} {sparks.host_key(simulated[0])}\n")
    elsewhere.ssh_config = (
        f"Host my-spark\n  HostName {third.address}\n  ProxyJump bastion\n{LOGIN}"
        f"Host bastion\n  HostName {simulated[0].address}\n  UserKnownHostsFile {known}\n{LOGIN}"
    )
    reach(elsewhere, third, "my-spark")
    elsewhere.up()
    assert elsewhere.is_clean()
    # It came from there, not from here.
    seen = sparks.inside(third, "grep", "Accepted publickey", "/var/log/sshd.log").splitlines()[-1]
    assert f"from {simulated[0].address} " in seen


def test_a_proxy_command_is_refused_at_preview(elsewhere, third):
    reach(elsewhere, third, third.address, **GIVEN)
    elsewhere.ssh_config = (
        f"Host {third.address}\n  ProxyCommand ssh -F none -i {KEY} -o StrictHostKeyChecking=no "
        f"-o UserKnownHostsFile=/dev/null -W %h:%p {USER}@%h\n"
    )
    assert "ssh_config reaches it by ProxyCommand, which Pulumi's command provider does not know" in (
        elsewhere.refusal()
    )


@pytest.mark.long
def test_a_name_by_mdns_alone_serves(elsewhere, third, tmp_path):
    # In the file stands what avahi would say: the resolver of the system finds it, Go's own does not.
    getent = tmp_path / "bin" / "getent"
    getent.parent.mkdir()
    getent.write_text('#!/bin/sh\ncase "$4" in *.local) exit 2 ;; esac\nexec /usr/bin/getent "$@"\n')
    getent.chmod(0o755)
    elsewhere.environment = {
        **elsewhere.environment,
        "PATH": f"{getent.parent}:{elsewhere.environment['PATH']}",
    }
    elsewhere.hosts = f"{third.address} spark-ab12.local\n"
    reach(elsewhere, third, "spark-ab12.local", **GIVEN)
    elsewhere.up()
    assert elsewhere.outputs()["api_base"] == "http://spark-ab12.local:8000/v1"
    assert elsewhere.is_clean()


@contextlib.contextmanager
def ipv6(spark: Spark) -> Iterator[str]:
    """Its address beside the IPv4 one."""
    network.ip("-6", "addr", "add", "fd77::1/64", "dev", BRIDGE, "nodad")
    address = f"fd77::{spark.index + 10}"
    try:
        network.ip("-6", "addr", "add", f"{address}/64", "dev", "enP7s7", "nodad", namespace=spark.name)
        yield address
    finally:
        network.ip("-6", "addr", "del", f"{address}/64", "dev", "enP7s7", namespace=spark.name, check=False)
        network.ip("-6", "addr", "del", "fd77::1/64", "dev", BRIDGE)


def test_ipv6_is_in_brackets_wherever_it_is_part_of_a_url(elsewhere, third):
    with ipv6(third) as address:
        reach(elsewhere, third, address, **GIVEN)
        try:
            elsewhere.up()
            assert elsewhere.outputs()["api_base"] == f"http://[{address}]:8000/v1"
            assert elsewhere.is_clean()
        finally:
            # The address it is reached at goes with this test.
            elsewhere.destroy()


@contextlib.contextmanager
def login_shell(spark: Spark, path: str) -> Iterator[None]:
    sparks.inside(spark, "usermod", "--shell", path, USER)
    try:
        yield
    finally:
        sparks.inside(spark, "usermod", "--shell", "/bin/bash", USER)


@pytest.mark.long
def test_fish_as_login_shell_serves(alone, third):
    with login_shell(third, "/usr/bin/fish"):
        alone.up()
        where = of(Project(alone.folder, alone.environment), alone.name)
        assert look.status(where)["sparks"][third.name]["lease"] == where.identity
        assert look.shell(where, None, ["sh", "-c", 'test "$0" = "it\'s \\\\ 1"', "it's \\ 1"]) == 0
        alone.destroy()


GREETER = """#!/bin/sh
echo "Welcome to DGX Spark"
/bin/bash "$@"
code=$?
echo "See you"
exit $code
"""


@pytest.mark.parametrize("how", [".bashrc", "login shell"])
def test_a_shell_that_prints_is_refused_with_its_words(alone, third, how):
    home = f"/home/{USER}"
    if how == ".bashrc":
        sparks.inside(
            third, "sh", "-c", f"cp {home}/.bashrc /root/kept; echo 'echo Welcome to DGX Spark' >{home}/.bashrc"
        )
        undo = ("sh", "-c", f"cp /root/kept {home}/.bashrc")
    else:
        sparks.inside(
            third, "sh", "-c", 'printf %s "$1" >/usr/local/bin/greeter; chmod 755 /usr/local/bin/greeter', "sh", GREETER
        )
        sparks.inside(third, "usermod", "--shell", "/usr/local/bin/greeter", USER)
        undo = ("usermod", "--shell", "/bin/bash", USER)
    try:
        text = alone.refusal()
        where = of(Project(alone.folder, alone.environment), alone.name)
        # Our own commands are not disturbed.
        assert where.ask("look.py", {third.name: {"stack": "x/y/z", "cache": "~"}})[third.name]["containers"] == []
    finally:
        sparks.inside(third, *undo)
    assert "spark-3: its login shell prints 'Welcome to DGX Spark" in text
    assert "~/.bashrc" in text


def spark(home: Path, *words: str) -> pexpect.spawn:
    """`./spark …` on a terminal, as a user with this ~/.ssh."""
    overlay = 'mkdir -p ~/.ssh; mount --bind "$0" ~/.ssh; exec "$@"'
    argv = ["--mount", "sh", "-ec", overlay, str(home), sys.executable, "-m", "ops", *words]
    return pexpect.spawn("unshare", argv, cwd=ROOT, timeout=60, encoding="utf-8")


@pytest.fixture
def guarded(third: Spark) -> Iterator[Spark]:
    """As an owner takes it out of the box: passwords everywhere, and no key on it."""
    sparks.reinstall(replace(third, traits=Traits(sudo_asks=True, ssh_passwords=True)))
    yield third
    sparks.reinstall(third)


def test_setup_ssh_takes_the_password_once_for_ssh_and_once_for_sudo(guarded, tmp_path):
    sparks.inside(guarded, "sh", "-c", f"gpasswd -d {USER} docker; rm /home/{USER}/.ssh/authorized_keys")
    words = ("setup-ssh", "--hosts", guarded.address, "--user", USER, "--key", "~/.ssh/mine", "--yes")

    step("the password for ssh")
    child = spark(tmp_path, *words)
    child.expect("password:")
    child.sendline(PASSWORD)

    step("the one for sudo, mistyped once")
    child.expect(f"sudo password of {USER}@{guarded.address}: ")
    child.sendline("wrong")
    child.expect("not taken; sudo password")
    child.sendline(PASSWORD)
    child.expect("may use Docker from the next login on")
    child.expect(pexpect.EOF)
    assert PASSWORD not in child.before

    step("a second time: nothing to type")
    again = spark(tmp_path, *words)
    again.expect("logs in, and may use Docker")
    again.expect(pexpect.EOF)


def test_setup_network_asks_for_the_sudo_password_once(alone, guarded):
    own = "192.168.187.0/24,192.168.188.0/24"
    code = (
        "import os, sys; from pathlib import Path; from ops import setup; from ops.project import Project;"
        "from ops.stack import of;"
        f"setup.setup_network(of(Project(Path({str(alone.folder)!r}), dict(os.environ)), 'alone'), lambda _: True,"
        f" subnets={own.split(',')!r}, undo=len(sys.argv) > 1)"
    )

    def setup_network(*words: str) -> pexpect.spawn:
        return pexpect.spawn(
            sys.executable, ["-c", code, *words], cwd=ROOT, env=alone.environment, timeout=60, encoding="utf-8"
        )

    for words, address in (((), "192.168.187.11/24"), (("undo",), "")):
        child = setup_network(*words)
        child.expect(f"sudo password of {USER}@spark-3: ")
        child.sendline(PASSWORD)
        child.expect("done. Next")
        child.expect(pexpect.EOF)
        # Asked for once, though it runs there twice; and nowhere to be seen.
        assert "password" not in child.before
        shown = sparks.on(guarded, "ip -o -4 addr show enp1s0f1np1")
        assert address in shown if address else "192.168.187" not in shown
    assert PASSWORD not in sparks.inside(guarded, "cat", "/var/log/sshd.log")


@pytest.mark.long
def test_without_a_terminal_setup_network_says_what_to_do(alone, guarded, monkeypatch):
    where = of(Project(alone.folder, alone.environment), alone.name)
    monkeypatch.setattr("os.isatty", lambda _file: False)
    with pytest.raises(CommandError) as caught:
        setup.setup_network(where, lambda _question: True)
    assert f"./spark setup-network needs sudo on the Sparks, which wants the password of {USER}@spark-3" in str(
        caught.value
    )
