"""How many examples hypothesis tries: fewer where CI has little time (SPARK_EXAMPLES=short)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test asserts a time, and a busy machine is slow.
settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("whole"), max_examples=25)


def load() -> None:
    settings.load_profile(os.environ.get("SPARK_EXAMPLES", "whole"))


def some(whole: int) -> int:
    """Of a test that wants so many where the others have 100."""
    return max(whole * settings.default.max_examples // 100, 5)
