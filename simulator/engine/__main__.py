"""`python -m simulator.engine WORDS`: the command line of cli.py, from a warm start where there is one."""

from __future__ import annotations

import os
import signal
import sys

from simulator.engine import warm


def main() -> None:
    if warm.SOCKET in os.environ:
        sys.exit(warm.run("simulator.engine.cli", sys.argv[1:]))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Takes half a second; a warm start has done it.
    from simulator.engine.cli import main as command_line

    try:
        command_line()
    finally:
        # All is done and kept: a Ctrl-C from now on would only have Python's own end print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
