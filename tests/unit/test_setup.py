"""What `./spark init` and `setup-network` write."""

import string

import yaml
from hypothesis import given
from hypothesis import strategies as some

from components.settings import Ssh
from ops import setup
from ops.setup import Found

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIREPLACEWITHTHEKEYOFSPARK1AAAAAAAAAAAAAAAAA"
SPARK = Found("spark-1", "fe80::1", KEY, "SHA256:…")


def written(login):
    return yaml.safe_load(setup.text([SPARK], login, "vllm", "org/a: model #1"))["config"]


@given(some.text(string.printable, min_size=1))
def test_a_stack_file_says_what_was_given_whatever_is_in_it(path):
    config = written(Ssh.model_validate({"privateKeyFile": path, "port": 2222}))
    assert config == {
        "dgx-spark:nodes": [{"name": "spark-1", "host": "fe80::1"}],
        "dgx-spark:ssh": {"port": 2222, "privateKeyFile": path, "hostKeys": {"spark-1": KEY}},
        "dgx-spark:engine": "vllm",
        "dgx-spark:model": "org/a: model #1",
    }


def test_a_netplan_file_gives_each_twin_its_own_address_and_large_packets():
    text = setup.netplan(["enp1s0f1np1", "enP2p1s0f1np1"], ["192.168.177.11/24", "192.168.178.11/24"])
    assert text == (
        "# The link between the DGX Sparks; by ./spark setup-network, undone with --undo.\n"
        "network:\n"
        "  version: 2\n"
        "  ethernets:\n"
        "    enp1s0f1np1:\n"
        "      dhcp4: false\n"
        "      dhcp6: false\n"
        "      mtu: 9000\n"
        "      addresses:\n"
        "      - 192.168.177.11/24\n"
        "    enP2p1s0f1np1:\n"
        "      dhcp4: false\n"
        "      dhcp6: false\n"
        "      mtu: 9000\n"
        "      addresses:\n"
        "      - 192.168.178.11/24\n"
    )
