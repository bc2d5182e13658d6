"""One `up` of a stack at a time on a Spark."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

import pytest

from components.remote import parcel


@pytest.fixture
def stack():
    return f"organization/dgx-spark/{uuid.uuid4().hex}"


def started(home, stack, who):
    command = parcel.command("hold.py", "apply", limit=60).replace("python3", sys.executable, 1)
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=home.environment(),
    )  # fmt: skip
    process.stdin.write(json.dumps(parcel.pack("hold.py", {"stack": stack, "who": who})))
    process.stdin.close()
    return process


def test_who_comes_second_is_told_by_whom_and_gets_it_when_the_first_is_gone(home, stack):
    first = started(home, stack, "anna@laptop since 18:02")
    assert first.stdout.readline() == "held\n"
    second = started(home, stack, "ben@desk since 18:03")
    assert second.stdout.read() == ""
    assert second.stderr.read().strip() == "another `up` of this stack is under way: anna@laptop since 18:02"
    # Its program has ended, and nobody reads what it prints.
    first.stdout.close()
    third = started(home, stack, "ben@desk since 18:03")
    assert third.stdout.readline() == "held\n"
    third.stdout.close()
    assert [process.wait(timeout=20) for process in (first, second, third)] == [0, 1, 0]


def test_another_stack_is_another_matter(home, stack):
    first, other = started(home, stack, "anna"), started(home, f"{stack}2", "ben")
    for process in (first, other):
        assert process.stdout.readline() == "held\n"
        process.stdout.close()
        process.wait(timeout=20)
