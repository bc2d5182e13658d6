"""A password for sudo is asked for once, where it is wanted, and only on a terminal."""

import getpass
import os

import pytest

from ops.pulumi import CommandError
from ops.sudo import Sudo


class Sparks:
    """Each wants this password; None: none."""

    def __init__(self, monkeypatch, typed, **wants):
        self.wants, self.asked = wants, []
        self.users = dict.fromkeys(wants, "nvidia")

        def type_(prompt):
            self.asked.append(prompt)
            return typed[len(self.asked) - 1]

        monkeypatch.setattr(os, "isatty", lambda _file: bool(typed))
        monkeypatch.setattr(getpass, "getpass", type_)

    def attempt(self, name, password):
        return password == self.wants[name]

    def run(self, sudo):
        return sudo.run(self.users, self.attempt, lambda ran: not ran)


def test_nobody_is_asked_where_sudo_does_not_ask(monkeypatch):
    sparks = Sparks(monkeypatch, ["x"], a=None, b=None)
    assert sparks.run(Sudo("./spark x")) == {"a": True, "b": True}
    assert sparks.asked == []


def test_one_password_is_typed_once_for_all_and_for_later(monkeypatch):
    sparks, sudo = Sparks(monkeypatch, ["pw"], a="pw", b="pw", c=None), Sudo("./spark x")
    assert sparks.run(sudo) == sparks.run(sudo) == {"a": True, "b": True, "c": True}
    assert sparks.asked == ["sudo password of nvidia@a, nvidia@b: "]


def test_a_spark_that_does_not_take_it_is_asked_for_alone(monkeypatch):
    sparks = Sparks(monkeypatch, ["pw", "other"], a="pw", b="other")
    assert sparks.run(Sudo("./spark x")) == {"a": True, "b": True}
    assert sparks.asked[1] == "not taken; sudo password of nvidia@b: "


def test_three_wrong_ones_are_enough(monkeypatch):
    sparks = Sparks(monkeypatch, ["1", "2", "3", "4"], a="pw")
    assert sparks.run(Sudo("./spark x")) == {"a": False}
    assert len(sparks.asked) == 3


def test_without_a_terminal_the_ways_out_are_named(monkeypatch):
    sparks = Sparks(monkeypatch, [], a="pw")
    with pytest.raises(CommandError) as caught:
        sparks.run(Sudo("./spark setup-network"))
    text = str(caught.value)
    assert text.startswith("./spark setup-network needs sudo on the Sparks, which wants the password of nvidia@a")
    assert "run it in a terminal" in text
    assert "echo 'nvidia ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/dgx-spark" in text
