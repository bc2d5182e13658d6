"""A table of our own in the Spark's nftables, loaded at every boot by a unit of our own. Runs as root.

stdin   JSON: text (of the rules; '' for none), write (false: only look)
stdout  JSON: text, active, chosen, as it was before (shared/guard.py)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys

from shared.files import write_file
from shared.guard import FILE, SERVICE, UNIT, state
from shared.job import job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import Guard

TABLE = ("inet", "dgx_spark")

UNIT_TEXT = f"""# Written by ./spark setup-guard, undone with --undo.
[Unit]
Description=The DGX Spark cluster's own ports are reached by its fabric alone
DefaultDependencies=no
After=nftables.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nft -f {FILE}
ExecStop=nft delete table {" ".join(TABLE)}

[Install]
WantedBy=sysinit.target
"""
"""As Debian's nftables.service, after which it runs: that one empties the whole rule set."""


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}")


def put(text: str) -> None:
    """Checked before anything is changed."""
    os.makedirs(os.path.dirname(FILE), exist_ok=True)
    candidate = f"{FILE}.new"
    write_file(candidate, text, 0o644)
    try:
        run("nft", "--check", "-f", candidate)
        os.replace(candidate, FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(candidate)
    write_file(UNIT, UNIT_TEXT, 0o644)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", SERVICE)
    run("systemctl", "restart", SERVICE)


def take_away() -> None:
    if os.path.exists(UNIT):
        run("systemctl", "disable", "--now", SERVICE)
        os.unlink(UNIT)
        run("systemctl", "daemon-reload")
    # Where somebody has stopped the unit's work half way.
    subprocess.run(["nft", "delete", "table", *TABLE], capture_output=True)
    shutil.rmtree(os.path.dirname(FILE), ignore_errors=True)


def main() -> None:
    inputs: Guard = job()[1]
    before = state()
    if inputs["write"] and inputs["text"]:
        if not shutil.which("nft"):
            sys.exit("there is no program nft here: sudo apt install nftables")
        put(inputs["text"])
    elif inputs["write"]:
        take_away()
    print(json.dumps(before))


main()
