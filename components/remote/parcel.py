"""How a script of ours gets to a Spark: text only; nothing is run or sent here. Standard library only.

Two ways. Questions and measurements travel whole, on the standard input of one fixed command, and leave nothing behind:
they work on a Spark that no stack has been on. What a stack does on its Sparks runs from a folder of its own there,
which its lease lays (scripts/node.py): a command's input is then what it is given and no more. Either way the command
line is short and holds no secret (sshd's log and Pulumi's error text show it).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "scripts"
INSIDE = FOLDER.parent / "inside"

QUESTIONS = frozenset(
    {
        "bandwidth.py", "clear.py", "contracts.py", "doctor.py", "gpu_busy.py", "guard.py", "hold.py", "logs.py",
        "look.py", "nccl.py", "netplan.py", "probe.py", "prune.py", "watch.py",
    }
)  # fmt: skip
"""Scripts that always travel whole, and the types of what they are given: a stack's folder has none of them."""

INTO_CONTAINERS = ("download.py", "ray_ready.py")
"""Programs of inside/ that scripts hand to a container."""

FIRST = "import json,sys;job=json.load(sys.stdin);exec(job['loader'])"
"""Short, because Pulumi repeats a failing command in its error text."""

FIRST_OF_SEVERAL = FIRST.replace("json.load(sys.stdin)", "json.loads(sys.stdin.readline())")
"""Reads one line, and leaves what follows to the next command."""

LOADER = """
import importlib.machinery, io

class Parcel:
    def find_spec(self, name, path=None, target=None):
        for tail in (".py", "/__init__.py"):
            file = name.replace(".", "/") + tail
            if file in job["scripts"]:
                return importlib.machinery.ModuleSpec(name, self, origin=file, is_package=tail != ".py")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        file = module.__spec__.origin
        exec(compile(job["scripts"][file], file, "exec"), module.__dict__)

sys.meta_path.insert(0, Parcel())
import shared
shared.PARCEL = job["scripts"]
sys.stdin = io.StringIO(json.dumps(job["input"]))
exec(compile(job["scripts"][sys.argv[2]], sys.argv[2], "exec"), {"__name__": "__main__"})
"""
"""Runs the script that the command line names, with the modules of `shared` to import and `input` on its standard
input."""

UNPACKING = f"""
import base64, zlib
job["scripts"] = json.loads(zlib.decompress(base64.b64decode(job["scripts"])))
{LOADER}
"""
"""The same where they are `packed`."""

SUDO = "sudo -n "
SUDO_ASKS = "sudo -k -S -p '' "
"""Takes the password from the first line of stdin, -k so that it always does. Source: sudo(8)."""


def command(
    name: str, verb: str, *, limit: int, root: bool = False, asks: bool = False, of_several: bool = False
) -> str:
    """Shell command for the Spark, which sh, bash, zsh and fish read alike, for a script that comes by stdin.

    limit   seconds after which it is ended, whatever it does
    root    by sudo without a password; with `asks`, the password is the first line of stdin, before the parcel
    of_several  its parcel is one line of stdin, after which those of other commands may come
    """
    sudo = (SUDO_ASKS if asks else SUDO) if root else ""
    return f'{sudo}timeout {limit} python3 -c "{FIRST_OF_SEVERAL if of_several else FIRST}" {verb} {name}'


def laid(stack: str) -> str:
    """Where a stack's scripts are on its Sparks, as their shells read it. `stack`: ORG/PROJECT/STACK, whose characters
    no shell minds. The same as scripts_directory in
    scripts/shared/state.py."""
    return f"~/.local/state/dgx-spark/{stack.replace('/', '.')}/scripts"


def command_there(stack: str, name: str, verb: str, *, limit: int, root: bool = False) -> str:
    """The same for a script of the stack's folder; its stdin is what it is given, as JSON.

    To remove succeeds where there is no such script: on a Spark that was reinstalled, nothing is left to remove.
    -B: Python would leave compiled files, root's own where it runs as root.
    """
    path = f"{laid(stack)}/{name}"
    unless_gone = f"test -e {path} || exec echo {name} is gone, nothing to remove >&2; " if verb == "remove" else ""
    return f"{unless_gone}{SUDO if root else ''}timeout {limit} python3 -B {path} {verb}"


BEGIN, END = "<dgx-spark:answer>", "</dgx-spark:answer>"
"""Around an answer on stdout, so that what a login shell prints is told from it."""

MARKED = f"""
sys.stdout.write("{BEGIN}")
sys.stdout.flush()
{LOADER}
print("{END}", flush=True)
"""
"""The same, with what it prints between marks."""


def pack(name: str, inputs: Mapping[str, object], *, loader: str = LOADER) -> dict[str, Any]:
    """What goes to `command`'s standard input, as JSON; `inputs` may hold Pulumi outputs."""
    scripts = {file: script(file) for file in (*_shared(), name)}
    return {"loader": loader, "scripts": scripts, "input": dict(inputs)}


def pack_all(inputs: Mapping[str, object]) -> dict[str, Any]:
    """The same for node.py, with all that it lays."""
    return {"loader": UNPACKING, "scripts": packed(laid_scripts()), "input": dict(inputs)}


def packed(scripts: Mapping[str, str]) -> str:
    """They are a Spark's largest input, which Pulumi keeps twice, and marshals, compares and logs at every preview."""
    return _compressed(json.dumps(scripts))


@lru_cache(maxsize=1)
def _compressed(text: str) -> str:
    """Every Spark of a run is brought the same."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def script(name: str) -> str:
    return (FOLDER / name).read_text()


def laid_scripts() -> dict[str, str]:
    """Name in the stack's folder → text."""
    inside = {f"inside/{name}": (INSIDE / name).read_text() for name in INTO_CONTAINERS}
    names = (path.name for path in sorted(FOLDER.glob("[!_]*.py")) if path.name not in QUESTIONS)
    return {name: script(name) for name in (*_shared(), *names)} | inside


def _shared() -> list[str]:
    """What scripts import of each other (scripts/shared/)."""
    return sorted(f"{path.parent.name}/{path.name}" for path in FOLDER.glob("shared/*.py"))


def text(name: str, inputs: Mapping[str, object]) -> str:
    """`pack` as text, for plain values."""
    return json.dumps(pack(name, inputs))


def asking(name: str, inputs: Mapping[str, object]) -> str:
    """`text` for a script whose answer is read by remote/ask.py."""
    return json.dumps(pack(name, inputs, loader=MARKED))
