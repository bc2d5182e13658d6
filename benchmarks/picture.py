"""The README's picture of a preview: `python -m benchmarks.picture` on two simulated Sparks writes docs/preview.svg."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ops.pulumi import ROOT
from simulator import up as simulation
from tests.e2e.conftest import Stack

FILE = ROOT / "docs" / "preview.svg"
WIDTH = 118
"""Characters of a line."""


OUTPUTS = re.compile(r"\nOutputs:\n.*?\n(?=Resources:)", re.DOTALL)
"""Of the stack: of no news in this picture, and long."""

FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def main() -> None:
    nodes = simulation.up(2, print)
    try:
        with tempfile.TemporaryDirectory() as folder:
            stack = Stack(Path(folder), "head-worker", nodes)
            try:
                stack.up()
                stack.configure(serving={"maxModelLen": 8192})
                said = stack("preview", "--stack", stack.name).text
            finally:
                stack.destroy()
    finally:
        simulation.down()
    FILE.write_text(picture("pulumi config set --path serving.maxModelLen 8192 && pulumi preview", said))
    print(FILE)


def picture(command: str, said: str) -> str:
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # noqa: SIM115  # ends with the program
    console.print(Text(f"$ {command}\n", style="bold"))
    console.print(Text.from_ansi(OUTPUTS.sub("\n", said).rstrip()))
    # Whoever looks at the picture has a monospaced font, and should ask nobody for another one.
    return FONTS.sub("", console.export_svg(title="pulumi preview"))


if __name__ == "__main__":
    main()
