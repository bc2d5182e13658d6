"""What ssh_config and the resolver say of a Spark, and how the command provider gets there without them."""

import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.plan import checks
from components.problems import Refused, Severity
from components.remote import reach, ssh
from components.remote.ssh import Config
from components.settings import Login, Ssh
from ops import setup
from ops.pulumi import CommandError
from tests.unit.build import KEY, settings

SAID = """\
host spark
user anna
hostname 192.168.1.11
port 2222
identitiesonly no
identityfile ~/.ssh/spark key
identityfile ~/.ssh/id_rsa
proxyjump anna@bastion:22
userknownhostsfile /home/me/.ssh/known_hosts /home/me/.ssh/known_hosts2
globalknownhostsfile /etc/ssh/ssh_known_hosts
identityagent none
"""


def test_what_ssh_prints_of_a_host_is_read():
    assert ssh.parse(SAID) == Config(
        hostname="192.168.1.11",
        user="anna",
        port=2222,
        identities=("~/.ssh/spark key", "~/.ssh/id_rsa"),
        jump="anna@bastion:22",
        known_hosts=("/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts"),
    )


@given(st.text())
def test_whatever_ssh_prints_is_read_without_a_crash(text):
    assert ssh.parse(f"port 22\n{text.replace('port', '')}").jump != "none"


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        ("bastion", ["bastion"]),
        ("me@bastion:2222", ["-l", "me", "-p", "2222", "bastion"]),
        ("me@[fd77::1]:2222", ["-l", "me", "-p", "2222", "fd77::1"]),
        ("fd77::1", ["fd77::1"]),
        ("ssh://me@bastion:22/", ["-l", "me", "-p", "22", "bastion"]),
        ("me@corp@bastion", ["-l", "me@corp", "bastion"]),
    ],
)
def test_the_host_to_jump_from_is_read_as_ssh_reads_it(jump, words):
    assert ssh.hop(jump) == words


def test_two_hosts_to_jump_from_are_refused():
    with pytest.raises(ValueError, match="more than one"):
        ssh.hop("a,b")


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1, max_size=4))
def test_quoted_words_come_out_of_a_shell_as_they_went_in(words):
    out = subprocess.run(["sh", "-c", f"printf '%s\\0' {ssh.quote(words)}"], capture_output=True, check=True).stdout
    assert out.split(b"\0")[:-1] == [word.encode() for word in words]


def test_no_backslash_stands_inside_quotes_where_fish_would_take_it_away():
    assert ssh.quote(["a'b\\c"]) == r"'a'\''b'\\'c'"


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (["192.168.1.12", "192.168.1.9"], "192.168.1.9"),
        (["fd77::1", "192.168.1.12"], "192.168.1.12"),
        (["169.254.7.7", "fd77::1"], "fd77::1"),
        (["fe80::1%eth0"], "fe80::1%eth0"),
    ],
)
def test_the_same_address_is_taken_in_whatever_order_they_come(found, chosen):
    assert ssh.preferred(found) == ssh.preferred(reversed(found)) == chosen


@pytest.mark.parametrize("form", [[], ["-m", "PEM", "-t", "rsa", "-b", "1024"], ["-m", "PKCS8", "-t", "ecdsa"]])
@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_a_key_with_a_passphrase_is_known_in_every_form(tmp_path, form, passphrase):
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-f", str(file), *form], check=True)
    assert ssh.is_encrypted(file.read_text()) == bool(passphrase)


def test_ipv6_is_in_brackets_in_every_url():
    made = settings(1, nodes=[{"name": "spark-1", "host": "[fd77::11]"}])
    assert made.head.host == "fd77::11"
    assert made.head.url_host == "[fd77::11]"
    assert ssh.docker_host(made.head, made.ssh) == "ssh://nvidia@[fd77::11]:22"
    assert ssh.argv(made.head, made.ssh)[-1] == "nvidia@fd77::11"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """`ssh` with this text as the user's ssh_config."""

    def write(text):
        (tmp_path / "config").write_text(text)
        program = tmp_path / "ssh"
        program.write_text(f'#!/bin/sh\nexec {real} -F {tmp_path}/config "$@"\n')
        program.chmod(0o755)
        # What is in neither /etc/hosts nor DNS, without asking DNS.
        (tmp_path / "getent").write_text('#!/bin/sh\ncase "$4" in *.local | *.invalid) exit 2 ;; esac\n')
        (tmp_path / "getent").chmod(0o755)

    # ssh looks for them in passwd's home, which no environment moves.
    monkeypatch.setattr(reach, "files", lambda: [str(tmp_path / "config")])
    real = subprocess.run(["which", "ssh"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return write


LONG = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILuoxv3ajTC5pZtfmZMmJPwpOvlYfFqC2Z9mwWvBUQcU"
HOSTS = [{"name": "spark-1", "host": "one"}, {"name": "spark-2", "host": "10.0.0.2"}]
ALIAS = "Host one\n  HostName 10.0.0.1\n  User anna\n  Port 2222\n  IdentityFile {}\n"


def test_ssh_config_says_what_the_settings_leave_open(configured, tmp_path):
    (tmp_path / "key").write_text("")
    configured(ALIAS.format(tmp_path / "key"))
    made = reach.settled(settings(nodes=HOSTS))
    assert made.login("spark-1") == Login("anna", 2222, str(tmp_path / "key"))
    assert made.head.url_host == "10.0.0.1"
    assert made.login("spark-2") == Login("nvidia", 22, "~/.ssh/id_ed25519")


@pytest.mark.parametrize("named", ["Host one\n  User {}\n", "Host *e\n  User {}\n  HostName 10.0.0.1\nHost two\n"])
def test_an_account_of_ssh_config_counts_also_where_it_is_called_as_the_one_here(configured, named):
    here = pwd.getpwuid(os.getuid()).pw_name
    configured(named.format(here))
    made = reach.settled(settings(nodes=HOSTS))
    assert made.login("spark-1").user == here
    assert made.login("spark-2").user == "nvidia"
    assert [node.user for node in setup.at(["one", "two"], Ssh())] == [here, "nvidia"]


def test_the_files_that_ssh_reads_by_itself_are_asked():
    said = subprocess.run(["ssh", "-v", "-G", "localhost"], capture_output=True, text=True, check=True).stderr
    read = [line.rpartition(" ")[2] for line in said.splitlines() if "Reading configuration data" in line]
    assert [path for path in read if path in reach.files()] == [path for path in reach.files() if Path(path).exists()]


def test_settings_go_before_ssh_config(configured, tmp_path):
    configured(ALIAS.format("/nowhere"))
    keys = {"spark-1": KEY, "spark-2": KEY}
    mine = {"user": "bob", "port": 2200, "privateKeyFile": "~/mine", "hostKeys": keys}
    made = reach.settled(settings(nodes=HOSTS, ssh=mine))
    assert made.login("spark-1") == Login("bob", 2200, "~/mine")
    own = [{**HOSTS[0], "user": "eve", "port": 22, "address": "api.lan"}, HOSTS[1]]
    made = reach.settled(settings(nodes=own, ssh=mine))
    assert made.login("spark-1") == Login("eve", 22, "~/mine")
    assert made.head.url_host == "api.lan"


def test_a_public_key_in_ssh_config_stands_for_the_agents(configured, tmp_path):
    (tmp_path / "key.pub").write_text("")
    configured(f"Host *\n  IdentityFile {tmp_path}/key.pub\n")
    assert reach.settled(settings()).login("spark-1").key_file is None


def test_a_broken_ssh_config_is_shown_in_its_own_words(configured):
    configured("Hots one\n")
    with pytest.raises(Refused, match=r"(?s)config: line 1: Bad configuration option: hots.*correct ~/.ssh/config"):
        reach.settled(settings())


def ways(made):
    return reach.ways(made, {node.name: "" for node in made.nodes})


def test_an_alias_is_handed_over_as_its_address(configured):
    configured(ALIAS.format("/nowhere"))
    way = ways(reach.settled(settings(nodes=HOSTS)))["spark-1"]
    assert (way.host, way.port, way.user, way.host_key, way.through) == ("10.0.0.1", 2222, "anna", KEY, None)


def test_a_name_that_only_the_system_resolves_is_handed_over_as_an_address(configured, monkeypatch):
    configured("")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *_rest, **_more: [(2, 1, 6, "", ("10.0.0.7", 0))] if "local" in name else []
    )
    made = settings(nodes=[{"name": "spark-1", "host": "spark-ab12.local"}, {"name": "spark-2", "host": "localhost"}])
    found = ways(made)
    assert found["spark-1"].host == "10.0.0.7"
    # What Go's own resolver finds stays a name: an address may change.
    assert found["spark-2"].host == "localhost"


def test_a_name_that_nothing_resolves_is_named(configured, monkeypatch):
    def unknown(*_words, **_more):
        raise socket.gaierror(-2, "Name or service not known")

    configured("")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    made = settings(nodes=[{"name": "spark-1", "host": "10.0.0.1"}, {"name": "spark-2", "host": "nowhere.invalid"}])
    with pytest.raises(Refused, match=r"nodes\[1\].host: nowhere.invalid: nowhere.invalid can't be resolved"):
        ways(made)


JUMP = (
    "Host one\n  ProxyJump me@bastion\n  HostName spark.inside\n"
    "Host bastion\n  HostName 10.0.0.254\n  Port 2200\n  IdentityFile {0}/key\n  UserKnownHostsFile {0}/known\n"
)


def test_a_host_to_jump_from_is_handed_over_with_its_known_key(configured, tmp_path):
    configured(JUMP.format(tmp_path))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(tmp_path / "key")], check=True)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[10.0.0.254]:2200 {public}\n")
    way = ways(reach.settled(settings(nodes=HOSTS)))["spark-1"]
    # That host resolves it.
    assert way.host == "spark.inside"
    assert way.through
    assert (way.through.host, way.through.port, way.through.user) == ("10.0.0.254", 2200, "me")
    assert way.through.host_key == public
    assert way.through.private_key == (tmp_path / "key").read_text()
    assert "PRIVATE" not in repr(way)


def test_the_key_of_a_spark_behind_another_host_is_that_of_known_hosts(configured, tmp_path):
    (tmp_path / "known").write_text(f"spark.inside {LONG}\n")
    configured(f"Host one\n  ProxyJump b\n  HostName spark.inside\n  UserKnownHostsFile {tmp_path}/known\n")
    (node,) = setup.at(["one"], Ssh())
    assert setup.scan(node, Ssh()).key == LONG
    configured(f"Host one\n  ProxyJump b\n  HostName other.inside\n  UserKnownHostsFile {tmp_path}/known\n")
    with pytest.raises(CommandError, match=r"one: no ed25519 key of other\.inside is in known_hosts"):
        setup.scan(*setup.at(["one"], Ssh()), Ssh())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("Host one\n  ProxyCommand nc %h %p\n", "ssh_config reaches it by ProxyCommand"),
        ("Host one\n  ProxyJump a,b\n", "a,b: more than one"),
        ("Host one\n  ProxyJump a\nHost a\n  ProxyJump b\n", "it is reached by a, which is itself behind another"),
        (
            "Host one\n  ProxyJump 10.0.0.9\nHost *\n  UserKnownHostsFile /nowhere\n  GlobalKnownHostsFile /nowhere\n",
            "no ed25519 key of 10.0.0.9 is in known_hosts: log in there once by hand",
        ),
    ],
)
def test_a_way_that_the_command_provider_can_not_go_is_refused(configured, config, words):
    configured(config)
    with pytest.raises(Refused) as caught:
        ways(reach.settled(settings(nodes=HOSTS)))
    assert f"nodes[0].host: one: {words}" in str(caught.value)


def test_a_key_with_a_passphrase_points_to_the_agent(tmp_path):
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(file)], check=True)
    login = {"hostKeys": {"spark-1": KEY, "spark-2": KEY}, "privateKeyFile": str(file)}
    with pytest.raises(Refused) as caught:
        reach.keys(settings(ssh=login))
    assert str(caught.value).startswith("1 thing needs")
    assert f"{file} needs a passphrase, and nobody can be asked: load it with `ssh-add {file}`" in str(caught.value)


def test_an_agents_keys_are_read_from_no_file():
    login = {"hostKeys": {"spark-1": KEY, "spark-2": KEY}, "privateKeyFile": "agent"}
    assert reach.keys(settings(ssh=login)) == {"spark-1": "", "spark-2": ""}


def test_an_api_that_no_one_would_find_at_an_ipv6_address_is_told():
    def told(**node):
        made = settings(1, nodes=[{"name": "spark-1", "host": "fd77::11", **node}])
        return [(problem.at, problem.severity) for problem in checks.addresses(made)]

    assert told() == [("nodes[0].address", Severity.WARN)]
    assert told(address="192.168.1.11") == []
