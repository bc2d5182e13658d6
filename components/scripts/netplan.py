"""Addresses and MTU of the fabric's interfaces, in a netplan file of our own. Runs as root.

stdin   JSON: text (of the file; '' for none), write (false: only look)
stdout  JSON: {"before": text of our file as it was, "others": [files of others that name one of its interfaces]}
"""

import glob
import json
import os
import re
import subprocess
import sys

from common import job, read

FILE = "/etc/netplan/60-dgx-spark-fabric.yaml"


def others(text: str) -> list:
    names = re.findall(r"^    (\S+):$", text, re.MULTILINE)
    paths = (path for path in sorted(glob.glob("/etc/netplan/*.yaml")) if path != FILE)
    return [path for path in paths if any(re.search(rf"\b{re.escape(name)}\b", read(path)) for name in names)]


def put(text: str) -> None:
    if not text:
        if os.path.exists(FILE):
            os.unlink(FILE)
        return
    # netplan warns of files that others can read: they may hold keys of wireless networks.
    with open(os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def main() -> None:
    _, given = job()
    before = read(FILE)
    if given["write"]:
        put(given["text"])
        done = subprocess.run(["netplan", "apply"], capture_output=True, text=True)
        if done.returncode:
            put(f"{before}\n" if before else "")
            subprocess.run(["netplan", "apply"], capture_output=True)
            sys.exit(f"netplan apply: {done.stderr.strip().splitlines()[-1:]}; the former file is back")
    print(json.dumps({"before": before, "others": others(given["text"])}))


main()
