"""What the simulator decides before it touches this machine: where things are kept, and where Debian comes from."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from simulator import cache, preflight, rootfs, sparks
from simulator.layout import Spark, Traits, cache_of
from simulator.rootfs import chosen_mirror


@pytest.fixture
def kept_in(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_the_cache_is_in_the_users_cache_directory():
    assert cache_of({"HOME": "/home/ann"}) == Path("/home/ann/.cache/dgx-spark-simulator")
    assert cache_of({"HOME": "/home/ann", "XDG_CACHE_HOME": "/big"}) == Path("/big/dgx-spark-simulator")
    assert cache_of({"HOME": "/home/ann", "XDG_CACHE_HOME": "rel"}) == Path("/home/ann/.cache/dgx-spark-simulator")


def test_an_entry_is_made_once(kept_in):
    made = []

    def make(path):
        made.append(path)
        path.write_text("content")

    assert cache.kept("entry", make) == cache.kept("entry", make) == kept_in / "entry"
    assert len(made) == 1
    assert (kept_in / "entry").read_text() == "content"


def test_an_entry_that_was_cut_short_is_not_there(kept_in):
    def cut_short(path):
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept("entry", cut_short)
    assert [path.name for path in kept_in.iterdir()] == [cache.LOCKS]

    # What a killed process could not take away itself.
    (kept_in / ".partial-entry").mkdir()
    assert cache.kept("entry", Path.touch).is_file()


def test_two_who_want_the_same_entry_make_it_once(kept_in):
    inside, go_on, made = threading.Event(), threading.Event(), []

    def make(path):
        inside.set()
        assert go_on.wait(10)
        made.append(path)
        path.touch()

    first = threading.Thread(target=cache.kept, args=("entry", make))
    second = threading.Thread(target=cache.kept, args=("entry", made.append))
    first.start()
    assert inside.wait(10)
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert made == [kept_in / ".partial-entry"]


def test_two_simulations_that_begin_at_once_install_what_is_missing_once(kept_in, monkeypatch):
    inside, go_on, installed = threading.Event(), threading.Event(), []

    def install(packages):
        if not packages:
            return
        inside.set()
        assert go_on.wait(10)
        installed.extend(packages)

    kept_in.mkdir()
    monkeypatch.setattr(preflight, "obstacles", lambda: iter(()))
    monkeypatch.setattr(preflight, "missing_packages", lambda: [] if installed else ["debootstrap"])
    monkeypatch.setattr(preflight, "install", install)
    both = [threading.Thread(target=preflight.ensure) for _ in range(2)]
    both[0].start()
    assert inside.wait(10)
    both[1].start()
    go_on.set()
    for one in both:
        one.join()
    assert installed == ["debootstrap"]


def test_the_last_used_versions_of_each_kind_stay(kept_in):
    for age, name in enumerate(("layer-ray-1.tar", "layer-ray-2.tar", "layer-ray-3.tar", "docker-1")):
        cache.kept(name, Path.mkdir)
        os.utime(kept_in / name, (age, age))
    cache.kept("layer-ray-1.tar", Path.mkdir)
    cache.prune()
    assert sorted(path.name for path in kept_in.iterdir()) == [
        cache.LOCKS, "docker-1", "layer-ray-1.tar", "layer-ray-3.tar",
    ]  # fmt: skip


def test_a_purge_leaves_nothing_and_tells_how_much_it_was(kept_in):
    assert cache.purge() == 0
    cache.kept("entry", lambda path: path.write_bytes(b"x" * 100_000))
    assert cache.purge() >= 100_000
    assert not kept_in.exists()


SECURITY = "Debian|Debian-Security|http://mirror.example/debian-security/"


@pytest.mark.parametrize(
    ("targets", "mirror"),
    [
        (f"{SECURITY}\nDebian|Debian|http://mirror.example/debian/\n", "http://mirror.example/debian"),
        (
            "Docker|Docker CE|https://pkg.example/linux/debian/\nDebian|Debian|https://m.example/d/",
            "https://m.example/d",
        ),
        # Before the first `apt-get update` nothing is known but the URIs.
        ("||http://mirror.example/debian-security/\n||http://mirror.example/debian/", "http://mirror.example/debian"),
        ("Ubuntu|Ubuntu|http://archive.example/ubuntu/\n", ""),
        ("Debian|Debian|cdrom:[Debian 12]/\n", ""),
        ("", ""),
    ],
)
def test_debian_comes_from_where_this_machine_gets_it(targets, mirror):
    assert chosen_mirror(targets) == mirror


def test_the_first_of_a_list_of_mirrors_is_taken(tmp_path):
    listed = tmp_path / "debian.list"
    listed.write_text("# ours\n\nhttps://one.example/debian\tpriority:1\nhttps://two.example/debian\n")
    assert chosen_mirror(f"Debian|Debian|mirror+file:{listed}") == "https://one.example/debian"


def test_apts_proxy_is_handed_on_and_direct_is_none(monkeypatch):
    shown = "http_proxy='http://proxy.example:3128'\nhttps_proxy='DIRECT'\n"
    monkeypatch.setattr(rootfs, "_of_apt", lambda *_words: shown)
    assert rootfs.proxies() == {"http_proxy": "http://proxy.example:3128"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.layout.RUN", tmp_path)
    monkeypatch.setattr(sparks, "RUN", tmp_path)
    monkeypatch.setattr(rootfs, "root", lambda: Path("/somewhere/root"))
    (tmp_path / "spark-1").mkdir()
    return tmp_path / "spark-1"


def test_a_well_kept_spark_is_the_default(home):
    sparks._write_settings(Spark(1))
    assert "nvidia" in json.loads((home / "daemon.json").read_text())["runtimes"]
    assert (home / "docker-flags").read_text() == ""
    assert (home / "sudoers").read_text() == "nvidia ALL=(ALL) NOPASSWD:ALL\n"
    assert {"Port 22", "PasswordAuthentication no"} <= set((home / "sshd.conf").read_text().splitlines())


def test_traits_are_written_for_the_spark_and_found_again(home):
    flags = ("--debug", "--log-driver=json-file")
    unlike = Spark(
        1, Traits(nvidia_runtime=False, docker_flags=flags, sudo_asks=True, ssh_passwords=True, ssh_port=2222)
    )
    sparks._write_settings(unlike)
    assert "nvidia" not in json.loads((home / "daemon.json").read_text())["runtimes"]
    assert (home / "docker-flags").read_text().splitlines() == list(flags)
    assert (home / "sudoers").read_text() == "nvidia ALL=(ALL) ALL\n"
    assert {"Port 2222", "PasswordAuthentication yes"} <= set((home / "sshd.conf").read_text().splitlines())
    assert sparks.existing() == [unlike]
    assert sparks.ssh_argv(unlike)[-3:] == ["-p", "2222", "nvidia@10.77.0.11"]
