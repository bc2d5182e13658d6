"""A thing of Docker's goes from a Spark, or is found to be what is wanted (scripts/clear.py)."""

from __future__ import annotations

from dataclasses import asdict

from components.programs import session
from components.remote import hold
from components.remote.openssh import Target
from components.scripts.contracts import Clearing

LIMIT = 180
"""Seconds; a container, and a service's task, has 60 to end (plan/engines/common.py, GRACE)."""


def clear(spark: Target, inputs: Clearing) -> str:
    """What the script says of it. Raises session.Failed where it stays."""
    return session.run(asdict(spark), "clear.py", inputs, limit=LIMIT, more=hold.shared(spark))
