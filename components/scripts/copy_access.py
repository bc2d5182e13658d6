"""Let the other Sparks' keys read the weights on this one, over the fabric, and do nothing else.

stdin   JSON: keys [public key], directory (the only one they may read), sources [address], record
apply   one line per key in ~/.ssh/authorized_keys; all else in that file stays as it is
remove  takes exactly those lines away
"""

import os
import shutil
import sys

from common import record_path, remove_record, run, write_file, write_record

FILE = os.path.expanduser("~/.ssh/authorized_keys")


def marker(given: dict) -> str:
    return f" dgx-spark:{given['record']['stack']}"


def lines(given: dict) -> list:
    tool = shutil.which("rrsync") or "/usr/share/rsync/scripts/rrsync"
    if not os.access(tool, os.X_OK):
        sys.exit(
            "no program `rrsync`, which limits a key to reading one directory: sudo apt install rsync (3.2.4 or later)"
        )
    limits = f'restrict,from="{",".join(given["sources"])}",command="{tool} -ro {given["directory"]}"'
    return [f"{limits} {key}" for key in given["keys"]]


def current() -> str:
    try:
        with open(FILE) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def without_ours(text: str, given: dict) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(marker(given)))


def apply(given: dict) -> None:
    os.makedirs(given["directory"], exist_ok=True)
    os.makedirs(os.path.dirname(FILE), mode=0o700, exist_ok=True)
    rest = without_ours(current(), given)
    unended = bool(rest) and not rest.endswith("\n")
    wanted = lines(given)
    write_file(FILE, rest + ("\n" if unended else "") + "".join(f"{line}\n" for line in wanted))
    write_record(given["record"], {"lines": {FILE: wanted}}, unended=unended)


def remove(given: dict) -> None:
    rest = without_ours(current(), given)
    if was_unended(given):
        rest = rest.removesuffix("\n")
    if rest != current():
        write_file(FILE, rest)
    remove_record(given["record"])


def was_unended(given: dict) -> bool:
    try:
        with open(record_path(given["record"]["stack"], given["record"]["kind"])) as stream:
            return '"unended": true' in stream.read()
    except FileNotFoundError:
        return False


run(apply, remove)
