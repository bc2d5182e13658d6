"""Let the next Spark's key copy weights or an image from this one, over the fabric, and do nothing else.

stdin   JSON: keys [public key], key (the kind of their record), sources [address], record, and either
        directory (the only one they may read: copy_server.py sees to that), or image (id that the head knows the only
        one by that they may save: image_server.py)
apply   one line per key in ~/.ssh/authorized_keys, or in what that links to; all else in that file stays as it is
remove  takes exactly those lines away
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator

from shared.files import locked, write_file
from shared.job import run
from shared.records import read_record, remove_record, write_record
from shared.state import scripts_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contracts import ImageAccess

FILE = os.path.expanduser("~/.ssh/authorized_keys")


def marker(inputs: ImageAccess) -> str:
    return f" dgx-spark:{inputs['record']['stack']}:{inputs['key']}"


def lines(inputs: ImageAccess) -> list:
    command = allowed(inputs).replace('"', '\\"')
    limits = f'restrict,from="{",".join(inputs["sources"])}",command="{command}"'
    return [f"{limits} {key}" for key in inputs["keys"]]


def allowed(inputs: ImageAccess) -> str:
    """The one command that sshd runs for these keys."""
    if "image" in inputs:
        server, what = "image_server.py", inputs["image"]
    else:
        server, what = "copy_server.py", inputs["directory"]
    return shlex.join(["python3", "-B", os.path.join(scripts_directory(inputs["record"]["stack"]), server), what])


@contextlib.contextmanager
def editing() -> Iterator:
    """(text, write): the file as it is, and how to replace it; other steps wait meanwhile, and a link stays one."""
    folder = os.path.dirname(FILE)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        with locked(folder):
            target = os.path.realpath(FILE)
            try:
                with open(target, encoding="utf-8", errors="surrogateescape", newline="") as stream:
                    text, mode = stream.read(), os.fstat(stream.fileno()).st_mode & 0o777
            except FileNotFoundError:
                text, mode = "", 0o600
            yield text, lambda wanted: write_file(target, wanted, mode)
    except PermissionError as error:
        sys.exit(f"{error.filename or FILE}: {error.strerror}; sshd of this Spark reads the keys there")


def without_ours(text: str, inputs: ImageAccess) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(marker(inputs)))


def apply(inputs: ImageAccess) -> None:
    if "directory" in inputs:
        os.makedirs(inputs["directory"], exist_ok=True)
    wanted = lines(inputs)
    with editing() as (text, write):
        rest = without_ours(text, inputs)
        unended = bool(rest) and not rest.endswith("\n")
        write(rest + ("\n" if unended else "") + "".join(f"{line}\n" for line in wanted))
    write_record(inputs["record"], {"lines": {FILE: wanted}}, unended=unended)


def remove(inputs: ImageAccess) -> None:
    if os.path.exists(FILE):
        take_away(inputs)
    remove_record(inputs["record"])


def take_away(inputs: ImageAccess) -> None:
    with editing() as (text, write):
        rest = without_ours(text, inputs)
        if read_record(inputs["record"]).get("unended"):
            rest = rest.removesuffix("\n")
        if rest != text:
            write(rest)


run(apply, remove)
