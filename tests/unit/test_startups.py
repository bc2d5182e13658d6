"""How long a server took to start is known when it starts again, and in `./spark status`."""

import csv
from dataclasses import fields
from types import SimpleNamespace

import pytest

from components.programs import readiness, startups
from components.programs.startups import Starts
from ops import bench, look
from tests.unit.build import settings


def start(number, answer=90, configuration="a"):
    return {
        "started": f"2026-11-26T20:00:{number:02}Z", "configuration": configuration,
        "port": 1, "health": answer - 1, "answer": answer,
    }  # fmt: skip


def test_starts_are_remembered_for_their_own_configuration_once_each(tmp_path):
    starts = Starts(tmp_path, "demo")
    for one in (start(1), start(2, 30), start(2, 30), start(3, 600, "b")):
        starts.remember(one)
    assert starts.former("a") == [start(1), start(2, 30)]
    assert starts.former("c") == Starts(tmp_path, "other").former("a") == []
    assert startups.usual(starts.former("a")) == "90, 30 s"


def test_the_oldest_starts_go_and_a_broken_file_knows_of_none(tmp_path):
    starts = Starts(tmp_path, "demo")
    for number in range(startups.KEPT + 5):
        starts.remember({**start(0), "started": str(number)})
    assert [one["started"] for one in starts.former("a")][::199] == ["5", "204"]
    (tmp_path / startups.FOLDER / "demo.json").write_text("{")
    assert starts.former("a") == []


@pytest.fixture
def waits(tmp_path, monkeypatch):
    """`readiness.wait` for a server whose only Spark says this."""
    monkeypatch.chdir(tmp_path)

    class Says:
        def __init__(self, watch, limit, inbox):
            for message in watch:
                inbox.put(("spark-1", message))

        def end(self):
            pass

    monkeypatch.setattr(readiness, "Watch", Says)

    def wait(begun, startup):
        said = [{"begun": begun}, {"ready": {"text": "Paris", "models": ["m"], "startup": startup}}]
        return readiness.wait(
            {"stack": "demo", "engine": "vllm", "timeout": 60, "rdma": "warn", "ranks": [], "watches": [said]}
        )

    return wait


def test_an_up_says_what_former_starts_took_and_remembers_its_own(waits, capsys):
    assert waits("a", start(1)) == 0
    assert "former starts" not in capsys.readouterr().out
    assert waits("a", None) == 0
    assert "former starts of this configuration: first answer after 90 s" in capsys.readouterr().out
    assert waits("b", start(2, configuration="b")) == 0
    assert "former starts" not in capsys.readouterr().out


@pytest.fixture
def status(tmp_path):
    """What `./spark status` finds where these starts are remembered, and the head tells that one of the server's."""
    chosen = settings()
    idle = {
        "gpu": {"busy": None, "temperature": None, "power": None}, "memory": {"free": 0}, "disk": {"free": 0},
        "lease": "o/p/s", "containers": [],
    }  # fmt: skip

    def found(told, *remembered):
        for one in remembered:
            Starts(tmp_path, "s").remember(one)
        return look.status(
            SimpleNamespace(
                settings=chosen, identity="o/p/s", stack="s", where=SimpleNamespace(folder=tmp_path), outputs={},
                caches=lambda: {node.name: "/cache" for node in chosen.nodes}, api_key=lambda: "",
                ask=lambda script, inputs: {name: {**idle, "startup": None} for name in inputs}
                | {chosen.head.name: {**idle, "startup": told}},
            )
        )  # fmt: skip

    return found


def test_status_shows_the_present_start_and_what_former_ones_of_its_configuration_took(status, capsys):
    now = start(4, 31)
    found = status(now, start(1, 90), start(2, 600, "b"), start(3, 33), now)
    assert found["endpoint"]["startup"] == now
    assert found["endpoint"]["former_starts"] == [start(1, 90), start(3, 33)]
    look.show(found)
    said = capsys.readouterr().out
    assert "Started 2026-11-26 20:00 UTC: port open after 1 s, /health after 30 s, first answer after 31 s" in said
    assert "Former starts of this configuration: first answer after 90, 33 s" in said


def test_status_says_nothing_of_former_starts_where_there_are_none(status, capsys):
    first, unseen = status(start(1, 90), start(1, 90)), status(None)
    assert first["endpoint"]["former_starts"] == unseen["endpoint"]["former_starts"] == []
    look.show(first)
    look.show(unseen)
    said = capsys.readouterr().out
    assert "Former" not in said
    assert said.count("Started") == 1


def test_a_table_of_an_earlier_version_takes_results_with_more_columns(tmp_path):
    spread = bench.Spread(1, 1, 1, 1)
    given = {one.name: spread if one.type == "Spread" else 1 for one in fields(bench.Result)}
    result = bench.Result(**{**given, "profile": bench.PROFILES["quick"], "startup_s": 31.0})
    table = tmp_path / "results.csv"
    table.write_text("timestamp,stack\nthen,demo\n")
    bench.append(table, result)
    bench.append(table, result)
    rows = list(csv.DictReader(table.open()))
    assert [row["timestamp"] for row in rows] == ["then", "1", "1"]
    assert [row["startup_s"] for row in rows] == ["", "31.0", "31.0"]
