"""A journey's steps: what the user does or sees. A test that fails says at which of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

STEPS: list[str] = []
"""Of the test that runs."""


def step(what: str) -> None:
    """From here to the next step, or to its end, the test is about this."""
    STEPS.append(what)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when == "setup":
        STEPS.clear()
    report = yield
    # Skipped ones and those of `pytest --tb=native` have none.
    place: Any = getattr(report.longrepr, "reprcrash", None)
    if report.failed and STEPS and place:
        report.sections.append(("steps", "\n".join(STEPS)))
        place.message = f"at the step “{STEPS[-1]}”: {place.message}"
    return report
