"""This Spark's way to the rest of the world, where its environment names proxies (/etc/environment, by pam_env)."""

from __future__ import annotations

import os

NAMES = tuple(name for lower in ("http_proxy", "https_proxy", "no_proxy") for name in (lower, lower.upper()))


def proxies() -> dict[str, str]:
    """Variable → value, of those that are set."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}
