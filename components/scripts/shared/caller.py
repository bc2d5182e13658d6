"""Who has called a script, and reads what it prints."""

from __future__ import annotations

import select
import sys


def gone(seconds: float | None = None) -> bool:
    """Waits for that, for so long at most. Nobody tells a script: sshd sends no signal where there is no terminal, and
    one that prints nothing meets no closed pipe."""
    poll = select.poll()
    # Without being asked for: that the other end is closed.
    poll.register(sys.stdout, 0)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
