"""The download out of the engine's image goes on where an earlier one was, whatever else is in the cache."""

from __future__ import annotations

import io
import json
import os
import sys
import types

import pytest

from components.inside import download

ENDPOINT, ETAG = "https://hub", "e" * 64


@pytest.fixture
def blobs(tmp_path):
    return tmp_path


def begin(blobs, expected=100):
    """What a try finds done, and its partial file's bytes."""
    path = blobs / f"{ETAG}.0f0f0f0f.incomplete"
    with path.open("wb") as partial:
        done = download.take_up(partial, expected)
    return done, path.read_bytes()


def interrupted(blobs, content):
    kept = blobs / f"{ETAG}.kept.incomplete"
    kept.write_bytes(content)
    return kept


def test_the_hub_is_asked_by_the_sparks_own_proxy(monkeypatch):
    asked = {}
    hub = types.ModuleType("huggingface_hub")
    hub.file_download = types.SimpleNamespace(http_get=None)
    hub.snapshot_download = lambda repo, **words: asked.update(
        {name: os.environ[name] for name in ("https_proxy", "HF_ENDPOINT")}
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    job = {"endpoint": ENDPOINT, "repo": "a/b", "commit": "c", "token": "", "files": [{"path": "w", "size": 1}]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({**job, "proxies": {"https_proxy": "http://proxy:3128"}})))
    download.main()
    assert asked == {"https_proxy": "http://proxy:3128", "HF_ENDPOINT": ENDPOINT}


def test_a_try_begins_with_what_the_one_before_had(blobs):
    kept = interrupted(blobs, b"half of it")
    assert begin(blobs) == (10, b"half of it")
    # What this one adds is kept for the next.
    assert kept.samefile(blobs / f"{ETAG}.0f0f0f0f.incomplete")


def test_more_than_the_whole_file_is_not_taken(blobs):
    interrupted(blobs, b"x" * 101)
    assert begin(blobs) == (0, b"")


def test_other_tries_of_the_same_file_go_and_those_of_others_stay(blobs):
    old, other = blobs / f"{ETAG}.12345678.incomplete", blobs / f"{'f' * 64}.incomplete"
    old.write_bytes(b"x")
    other.write_bytes(b"y")
    begin(blobs)
    assert not old.exists()
    assert other.exists()


def test_a_partial_file_that_can_not_be_removed_is_no_error(blobs):
    # A directory: unlink refuses it to root too, as it refuses another user's file in a sticky directory.
    (blobs / f"{ETAG}.12345678.incomplete").mkdir()
    assert begin(blobs) == (0, b"")


def test_what_can_not_be_read_is_fetched_anew(blobs):
    (blobs / f"{ETAG}.kept.incomplete").mkdir()
    assert begin(blobs) == (0, b"")


def test_a_partial_file_that_another_process_removed_meanwhile_is_no_error(blobs, monkeypatch):
    gone = str(blobs / f"{ETAG}.12345678.incomplete")
    monkeypatch.setattr(download.glob, "glob", lambda _: [gone])
    assert begin(blobs) == (0, b"")


def test_a_filesystem_without_hard_links_costs_the_head_start_alone(blobs, monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    interrupted(blobs, b"half of it")
    assert begin(blobs) == (10, b"half of it")
