"""The scripts that run on a Spark, run here: records, leases and authorized_keys, in a home of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.remote import parcel
from tests.unit.home import STACK, Home, record


def test_a_lease_is_taken_and_given_back_without_a_trace(home):
    assert home.lease("apply").returncode == 0
    assert json.loads((home.path / ".local/state/dgx-spark/lease.json").read_text())["stack"] == STACK
    assert (home.path / ".cache/huggingface").is_dir()
    assert home.lease("remove").returncode == 0
    assert home.files() == []


def test_directories_that_hold_something_of_others_stay(home):
    home.lease("apply")
    (home.path / ".cache/huggingface/mine").write_text("")
    (home.path / ".local/state/other").mkdir()
    home.lease("remove")
    assert home.files() == [
        ".cache",
        ".cache/huggingface",
        ".cache/huggingface/mine",
        ".local",
        ".local/state",
        ".local/state/other",
    ]


def test_a_lease_that_could_not_be_taken_leaves_nothing_and_others_get_the_spark(home):
    nowhere = home.path / "file"
    nowhere.write_text("")
    failed = home.lease("apply", cache=str(nowhere / "cache"))
    assert (failed.returncode, home.files()) == (1, ["file"])
    assert home.lease("apply", stack="organization/dgx-spark/other").returncode == 0


def test_a_lease_that_could_not_be_renewed_is_still_there(home):
    home.lease("apply")
    before = home.files()
    nowhere = home.path / "file"
    nowhere.write_text("")
    assert home.lease("apply", generation="2", cache=str(nowhere / "cache")).returncode == 1
    nowhere.unlink()
    assert home.files() == before
    assert home.lease("apply", stack="organization/dgx-spark/other").returncode == 1


def test_what_was_cut_short_before_it_noted_anything_goes_with_the_stack(home):
    (home.path / ".local/state/dgx-spark").mkdir(parents=True)
    home.lease("apply")
    home.lease("remove")
    assert home.files() == [".local", ".local/state"]


def test_taking_twice_is_taking_once(home):
    home.lease("apply")
    home.lease("apply")
    home.lease("remove")
    assert home.files() == []


def test_a_spark_held_by_another_stack_is_refused_and_not_released(home):
    home.lease("apply")
    refused = home.lease("apply", stack="organization/dgx-spark/other")
    assert refused.returncode != 0
    held = f"this Spark is held by the stack {STACK}: destroy that one first, or take it over"
    assert refused.stderr.strip() == held
    home.lease("remove", stack="organization/dgx-spark/other")
    assert (home.path / ".local/state/dgx-spark/lease.json").exists()


def test_a_spark_that_will_be_taken_over_stays_the_others_until_room_is_made(home):
    home.lease("apply")
    assert home.lease("apply", stack="organization/dgx-spark/other", takeover=True).returncode == 0
    assert json.loads((home.path / ".local/state/dgx-spark/lease.json").read_text())["stack"] == STACK
    home.lease("remove", stack="organization/dgx-spark/other")
    home.lease("remove")
    assert home.files() == []


def test_a_lease_that_is_taken_again_leaves_the_stacks_other_records(home):
    home.lease("apply")
    home.run("copy_key.py", "apply", record=record("copy-key"))
    home.lease("apply", generation="2")
    assert ".local/state/dgx-spark/organization.dgx-spark.test/copy-key.json" in home.files()


def test_a_spark_that_has_another_name_in_the_stack_now_goes_on_under_it(home):
    home.lease("apply", node="spark-2")
    home.lease("apply", node="box-2")
    before = home.files()
    assert home.lease("remove", node="spark-2").returncode == 0
    assert home.files() == before
    home.lease("remove", node="box-2")
    assert home.files() == []


@pytest.mark.parametrize("known", ["everything", "nothing but the lease"])
def test_a_spark_is_handed_back_whole_whatever_the_state_knew(home, known):
    keys = lived_in(home)
    if known == "everything":
        home.step("copy_access.py", "remove", record=record("copy-access"), key="copy-key")
        home.step("copy_key.py", "remove", record=record("copy-key"))
    # An `up` that was killed has another generation than the state.
    assert home.lease("remove", generation="of before").returncode == 0
    assert keys.read_text() == "ssh-ed25519 AAAA me\n"
    assert home.files() == [".ssh", ".ssh/authorized_keys", "hub"]


def test_of_stacks_that_come_at_once_one_gets_the_spark_and_the_others_are_told_who_has_it(home):
    names = [f"organization/dgx-spark/{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = dict(zip(names, pool.map(lambda name: home.lease("apply", stack=name), names), strict=True))
    winners = [name for name, one in done.items() if one.returncode == 0]
    assert len(winners) == 1, winners
    (holder,) = winners
    assert json.loads((home.path / ".local/state/dgx-spark/lease.json").read_text())["stack"] == holder
    told = f"this Spark is held by the stack {holder}: destroy that one first, or take it over"
    assert {one.stderr.strip() for name, one in done.items() if name != holder} == {told}


SCRIPTS = ".local/state/dgx-spark/organization.dgx-spark.test/scripts"


@pytest.mark.parametrize("shell", [shell for shell in ("sh", "bash", "zsh", "fish") if shutil.which(shell)])
def test_a_step_runs_from_the_stacks_folder_and_leaves_nothing_there(home, shell):
    home.lease("apply")
    before = home.files()
    assert f"{SCRIPTS}/copy_key.py" in before
    made = home.step("copy_key.py", "apply", shell=shell, record=record("copy-key"))
    assert made.stdout.startswith("ssh-ed25519 "), made.stderr
    removed = home.step("copy_key.py", "remove", shell=shell, record=record("copy-key"))
    assert (removed.returncode, removed.stderr) == (0, "")
    assert home.files() == before


@pytest.mark.parametrize("shell", [shell for shell in ("sh", "bash", "zsh", "fish") if shutil.which(shell)])
def test_on_a_spark_that_was_reinstalled_nothing_is_left_to_remove(home, shell):
    removed = home.step("copy_key.py", "remove", shell=shell, record=record("copy-key"))
    assert removed.returncode == 0
    assert removed.stdout == ""
    assert removed.stderr.strip() == "copy_key.py is gone, nothing to remove"
    assert home.step("copy_key.py", "apply", shell=shell, record=record("copy-key")).returncode != 0
    assert home.lease("remove").returncode == 0
    assert home.files() == []


def test_a_spark_whose_scripts_somebody_deleted_is_handed_back_all_the_same(home):
    keys = lived_in(home)
    shutil.rmtree(home.path / SCRIPTS)
    home.step("copy_access.py", "remove", record=record("copy-access"))
    home.step("copy_key.py", "remove", record=record("copy-key"))
    handed_back = home.lease("remove")
    assert handed_back.returncode == 0, handed_back.stderr
    assert keys.read_text() == "ssh-ed25519 AAAA me\n"
    assert home.files() == [".ssh", ".ssh/authorized_keys", "hub"]


def probed(home: Home) -> dict[str, bool]:
    """Kind of a record → whether it is intact."""
    wanted = {"stack": STACK, "cache": "~", "repos": [], "images": [], "sudo": False, "look": None, "draft": None,
              "encodings": []}  # fmt: skip
    found = json.loads(home.run("probe.py", "apply", **wanted).stdout)["records"]
    return {kind: about["intact"] for kind, about in found.items()}


@pytest.mark.parametrize(
    "harm",
    [shutil.rmtree, lambda folder: (folder / "evict.py").unlink(), lambda folder: (folder / "evict.py").write_text("")],
)
def test_scripts_that_are_gone_or_others_are_missed_and_laid_again_and_nothing_else_is(home, harm):
    home.lease("apply")
    home.step("copy_key.py", "apply", record=record("copy-key"))
    assert probed(home) == {"node": True, "scripts": True, "copy-key": True}
    harm(home.path / SCRIPTS)
    assert probed(home) == {"node": True, "scripts": False, "copy-key": True}
    home.lease("apply")
    assert probed(home) == {"node": True, "scripts": True, "copy-key": True}


def test_a_script_of_a_former_version_stays_for_what_it_has_made(home):
    home.lease("apply")
    (home.path / SCRIPTS / "former.py").write_text("print('removed')")
    (home.path / SCRIPTS / "evict.py").write_text("# before")
    home.lease("apply")
    assert home.step("former.py", "remove").stdout == "removed\n"
    assert (home.path / SCRIPTS / "evict.py").read_text() == parcel.script("evict.py")


def test_no_script_has_the_name_of_a_module_of_pythons_own():
    # They find each other by name, and so would Python's own modules find them.
    assert not {Path(name).stem for name in (*parcel.laid_scripts(), *parcel.QUESTIONS)} & sys.stdlib_module_names


def lived_in(home: Home) -> Path:
    """A Spark with a key of its owner's, and a stack's lease and copy keys; returns authorized_keys."""
    keys = home.path / ".ssh/authorized_keys"
    keys.parent.mkdir()
    keys.write_text("ssh-ed25519 AAAA me\n")
    home.lease("apply")
    home.step("copy_key.py", "apply", record=record("copy-key"))
    access(home, "apply", [f"ssh-ed25519 KEY dgx-spark:{STACK}:copy-key"])
    return keys


def access(home: Home, verb: str, keys: list[str]) -> subprocess.CompletedProcess[str]:
    directory = str(home.path / "hub")
    return home.run(
        "copy_access.py",
        verb,
        keys=keys,
        key="copy-key",
        directory=directory,
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
