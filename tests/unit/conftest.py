from __future__ import annotations

import shutil

import pytest

from components.remote import parcel
from tests.unit.home import Home
from tests.unit.host import Host


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.close()


@pytest.fixture
def often(tmp_path, monkeypatch):
    """Scripts that take long say how far they are all the time, not every ten seconds."""
    folder = tmp_path / "often"
    shutil.copytree(parcel.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "shared/progress.py").open("a") as stream:
        stream.write("\n\ndef pause(elapsed: float) -> float:\n    return 0.02\n")
    monkeypatch.setattr(parcel, "FOLDER", folder)
