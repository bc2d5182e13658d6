"""Let the other Sparks' keys copy weights or an image from this one, over the fabric, and do nothing else.

stdin   JSON: keys [public key], key (the kind of their record), sources [address], record, and either
        directory (the only one they may read) or image (id of the only one they may save)
apply   one line per key in ~/.ssh/authorized_keys; all else in that file stays as it is
remove  takes exactly those lines away
"""

import os
import shutil
import sys

from common import read_record, remove_record, run, write_file, write_record

FILE = os.path.expanduser("~/.ssh/authorized_keys")


def marker(given: dict) -> str:
    return f" dgx-spark:{given['record']['stack']}:{given['key']}"


def lines(given: dict) -> list:
    limits = f'restrict,from="{",".join(given["sources"])}",command="{allowed(given)}"'
    return [f"{limits} {key}" for key in given["keys"]]


def allowed(given: dict) -> str:
    """The one command that sshd runs for these keys."""
    if "image" in given:
        return f"docker save {given['image']}"
    tool = shutil.which("rrsync") or "/usr/share/rsync/scripts/rrsync"
    if not os.access(tool, os.X_OK):
        sys.exit(
            "no program `rrsync`, which limits a key to reading one directory: sudo apt install rsync (3.2.4 or later)"
        )
    return f"{tool} -ro {given['directory']}"


def current() -> str:
    try:
        with open(FILE) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def without_ours(text: str, given: dict) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(marker(given)))


def apply(given: dict) -> None:
    if "directory" in given:
        os.makedirs(given["directory"], exist_ok=True)
    os.makedirs(os.path.dirname(FILE), mode=0o700, exist_ok=True)
    rest = without_ours(current(), given)
    unended = bool(rest) and not rest.endswith("\n")
    wanted = lines(given)
    write_file(FILE, rest + ("\n" if unended else "") + "".join(f"{line}\n" for line in wanted))
    write_record(given["record"], {"lines": {FILE: wanted}}, unended=unended)


def remove(given: dict) -> None:
    rest = without_ours(current(), given)
    if read_record(given["record"]).get("unended"):
        rest = rest.removesuffix("\n")
    if rest != current():
        write_file(FILE, rest)
    remove_record(given["record"])


run(apply, remove)
