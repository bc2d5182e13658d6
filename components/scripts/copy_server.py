"""The one thing that sshd does for a key that copies models: rsync, sending from one directory.

rsync's own rrsync does not let links be followed out of the folder that is sent, and a cache's files may be such links
(huggingface_hub ≥ 1.32 keeps large files once for all models; people link to larger disks). So this follows them, and
knows no other option than those that weights.py uses. Named by copy_access.py in ~/.ssh/authorized_keys.

argument  the directory
env       SSH_ORIGINAL_COMMAND: what the other Spark's rsync asks for. Source: sshd(8), command="…"
"""

import os
import re
import shlex
import sys

OPTION = re.compile(r"-[lDtpr]+e\d*\.\w+|--copy-unsafe-links|--inplace")
"""What rsync 3.2 to 3.5 make of weights.py's. `s` before the `e` would bring the path by another way than this one."""

PATH = re.compile(r"(?:[A-Za-z0-9_.][A-Za-z0-9_.-]*/?)+")


def allowed(words: list) -> bool:
    """`rsync --server --sender OPTION… . PATH`, with a path that stays below."""
    if words[:3] != ["rsync", "--server", "--sender"] or len(words) < 6 or words[-2] != ".":
        return False
    path = words[-1]
    options = all(OPTION.fullmatch(word) for word in words[3:-2])
    return bool(options and PATH.fullmatch(path) and ".." not in path.split("/"))


def main() -> None:
    try:
        words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError:
        words = []
    if not allowed(words):
        sys.exit("dgx-spark: this key copies models, and does nothing else")
    os.chdir(sys.argv[1])
    os.execvp("rsync", words)


main()
