"""Start a command with variables that a file holds: those in a container's own environment `docker inspect` shows.

Runs inside the engine's image: Python 3.10+, standard library only.

usage   environment.py FILE COMMAND…      FILE: JSON, name → value
exit    the command's own
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    file, *command = sys.argv[1:]
    with open(file, encoding="utf-8") as stream:
        held: dict[str, str] = json.load(stream)
    os.execvpe(command[0], command, {**os.environ, **held})


if __name__ == "__main__":
    main()
