from __future__ import annotations

import pytest

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
