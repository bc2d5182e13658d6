"""What runs on the machine that runs Pulumi, by `local.Command`."""

import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def command(module: str, python: str = "python3") -> str:
    """The words for a shell that run a module of this project.

    Without the folder where the program is this project's own: it differs from machine to machine, and so would the
    resource. As a package, in somebody else's program, there is no other way.
    """
    words = f"{shlex.quote(python)} -m {module}"
    # By a link too: what has served is remembered in the folder of the stack's file (readiness.keep).
    own = Path("components").resolve() == ROOT / "components"
    return words if own else f"cd {shlex.quote(str(ROOT))} && {words}"
