"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator.engine import warm
from tests import examples
from tests.engine.lab import PASSPHRASE, SALT

examples.load()


@pytest.fixture
def hermetic(warm_starts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hermetic engine runs, whatever SPARK_ENGINE says."""
    monkeypatch.setenv("SPARK_ENGINE", "hermetic")


@pytest.fixture(scope="session")
def warm_starts() -> Iterator[None]:
    """The engine and its programs start within a tenth of a second."""
    with warm.server(PASSPHRASE, SALT) as socket, pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.SOCKET, socket)
        yield
