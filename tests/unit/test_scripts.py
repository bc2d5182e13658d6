"""The scripts that run on a Spark, run here: records, leases and authorized_keys, in a home of their own."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.plan.steps import copy_server
from components.scripts.common import is_named
from tests.unit.home import STACK, Home, record


def lease(
    home: Home, verb: str, stack: str = STACK, generation: str = "1", *, takeover: bool = False
) -> subprocess.CompletedProcess[str]:
    cache = str(home.path / ".cache" / "huggingface")
    wanted = record("node", generation, stack)
    return home.run("node.py", verb, stack=stack, cache=cache, takeover=takeover, record=wanted)


def test_a_lease_is_taken_and_given_back_without_a_trace(home):
    assert lease(home, "apply").returncode == 0
    assert json.loads((home.path / ".local/state/dgx-spark/lease.json").read_text())["stack"] == STACK
    assert (home.path / ".cache/huggingface").is_dir()
    assert lease(home, "remove").returncode == 0
    assert home.files() == []


def test_directories_that_hold_something_of_others_stay(home):
    lease(home, "apply")
    (home.path / ".cache/huggingface/mine").write_text("")
    (home.path / ".local/state/other").mkdir()
    lease(home, "remove")
    assert home.files() == [
        ".cache",
        ".cache/huggingface",
        ".cache/huggingface/mine",
        ".local",
        ".local/state",
        ".local/state/other",
    ]


def test_taking_twice_is_taking_once(home):
    lease(home, "apply")
    lease(home, "apply")
    lease(home, "remove")
    assert home.files() == []


def test_a_spark_held_by_another_stack_is_refused_and_not_released(home):
    lease(home, "apply")
    refused = lease(home, "apply", stack="organization/dgx-spark/other")
    assert refused.returncode != 0
    held = f"this Spark is held by the stack {STACK}: destroy that one first, or take it over"
    assert refused.stderr.strip() == held
    lease(home, "remove", stack="organization/dgx-spark/other")
    assert (home.path / ".local/state/dgx-spark/lease.json").exists()


def test_a_spark_that_will_be_taken_over_stays_the_others_until_room_is_made(home):
    lease(home, "apply")
    assert lease(home, "apply", stack="organization/dgx-spark/other", takeover=True).returncode == 0
    assert json.loads((home.path / ".local/state/dgx-spark/lease.json").read_text())["stack"] == STACK
    lease(home, "remove", stack="organization/dgx-spark/other")
    lease(home, "remove")
    assert home.files() == []


def test_a_lease_that_is_taken_anew_leaves_the_stacks_other_records(home):
    lease(home, "apply")
    home.run("copy_key.py", "apply", record=record("copy-key"))
    lease(home, "remove")
    lease(home, "apply", generation="2")
    assert ".local/state/dgx-spark/organization.dgx-spark.test/copy-key.json" in home.files()
    home.run("copy_key.py", "remove", record=record("copy-key"))
    lease(home, "remove", generation="2")
    assert home.files() == []


def test_an_older_generation_does_not_take_away_the_newer_lease(home):
    lease(home, "apply", generation="2")
    lease(home, "remove", generation="1")
    assert (home.path / ".local/state/dgx-spark/lease.json").exists()


def access(home: Home, verb: str, keys: list[str]) -> subprocess.CompletedProcess[str]:
    directory = str(home.path / "hub")
    return home.run(
        "copy_access.py",
        verb,
        keys=keys,
        key="copy-key",
        directory=directory,
        server=copy_server(),
        sources=["192.168.177.2"],
        record=record("copy-access"),
    )


@pytest.mark.parametrize("mine", ["", "ssh-ed25519 AAAA me\n", "ssh-ed25519 AAAA me", "# note\n\nssh-rsa BBBB you\n"])
def test_authorized_keys_are_handed_back_byte_for_byte(home, mine):
    file = home.path / ".ssh/authorized_keys"
    file.parent.mkdir()
    file.write_text(mine)
    assert access(home, "apply", [f"ssh-ed25519 KEY dgx-spark:{STACK}:copy-key"]).returncode == 0
    (line,) = [line for line in file.read_text().splitlines() if "KEY" in line]
    assert line.startswith('restrict,from="192.168.177.2",command="')
    assert f'copy_server.py {home.path}/hub" ssh-ed25519 KEY' in line
    assert access(home, "remove", []).returncode == 0
    assert file.read_text() == mine


def test_a_link_to_the_authorized_keys_stays_one(home):
    real = home.path / "dotfiles/keys"
    real.parent.mkdir()
    real.write_text("ssh-ed25519 AAAA me\n")
    real.chmod(0o640)
    file = home.path / ".ssh/authorized_keys"
    file.parent.mkdir()
    file.symlink_to("../dotfiles/keys")
    assert access(home, "apply", [f"ssh-ed25519 KEY dgx-spark:{STACK}:copy-key"]).returncode == 0
    assert file.is_symlink()
    assert "ssh-ed25519 KEY" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    access(home, "remove", [])
    assert real.read_text() == "ssh-ed25519 AAAA me\n"


def test_steps_that_write_authorized_keys_at_once_lose_no_line(home):
    def one(number: int) -> int:
        kind = f"image-{number}"
        given = {"keys": [f"ssh-ed25519 KEY{number} dgx-spark:{STACK}:{kind}"], "key": kind, "image": "sha256:1"}
        done = home.run("copy_access.py", "apply", sources=["192.168.177.2"], record=record(kind), **given)
        return done.returncode

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(16))) == [0] * 16
    text = (home.path / ".ssh/authorized_keys").read_text()
    assert [text.count(f"KEY{number} ") for number in range(16)] == [1] * 16
    assert not [name for name in home.files() if "partial" in name]


def test_a_copy_key_is_made_once_and_never_leaves(home):
    first = home.run("copy_key.py", "apply", record=record("copy-key"))
    again = home.run("copy_key.py", "apply", record=record("copy-key"))
    assert first.stdout == again.stdout
    assert first.stdout.startswith("ssh-ed25519 ")
    assert first.stdout.strip().endswith(f"dgx-spark:{STACK}:copy-key")
    home.run("copy_key.py", "remove", record=record("copy-key"))
    assert not [name for name in home.files() if "copy_key" in name]


PULLED = {"RepoTags": ["a/b:1"], "RepoDigests": [f"a/b@sha256:{'1' * 64}"]}
BY_DIGEST = {**PULLED, "RepoTags": None}


@pytest.mark.parametrize(
    ("image", "name", "named"),
    [
        (PULLED, "a/b:1", True),
        (PULLED, "a/b:2", False),
        (BY_DIGEST, "a/b:1", False),
        (BY_DIGEST, f"a/b:1@sha256:{'1' * 64}", True),
        (PULLED, f"a/b:1@sha256:{'2' * 64}", False),
        (
            {"RepoTags": ["r:5000/a:1"], "RepoDigests": [f"r:5000/a@sha256:{'1' * 64}"]},
            f"r:5000/a:1@sha256:{'1' * 64}",
            True,
        ),
        ({}, "a/b:1", False),
    ],
)
def test_a_pinned_image_is_known_by_its_digest_alone(image, name, named):
    assert is_named(image, name) == named
