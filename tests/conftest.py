"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator.engine import warm
from tests import examples
from tests.engine.lab import PASSPHRASE, SALT

examples.load()


@pytest.fixture(scope="session")
def warm_starts() -> Iterator[None]:
    """The engine and its programs start within a tenth of a second."""
    with warm.server(PASSPHRASE, SALT) as socket, pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.SOCKET, socket)
        yield
