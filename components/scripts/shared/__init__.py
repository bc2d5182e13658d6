"""What the scripts that run on a Spark have in common. Python 3.10+, no packages.

They import it as `shared`, whether they come by stdin or run from their stack's folder (components/remote/parcel.py).
"""

from __future__ import annotations

import os

PARCEL: dict[str, str] = {}
"""Name → text of the scripts that came by stdin with the one that runs; empty where it runs from its stack's folder."""

# sshd gives a login user none of these, and ip, ibdev2netdev and others may be there.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
