"""`python -m simulator.engine WORDS`: the command line of cli.py, from a warm start where there is one."""

from __future__ import annotations

import os
import sys

from simulator.engine import warm


def main() -> None:
    if warm.SOCKET in os.environ:
        sys.exit(warm.run("simulator.engine.cli", sys.argv[1:]))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Takes half a second; a warm start has done it.
    from simulator.engine.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
