"""The README's picture of a preview: `python -m benchmarks.picture` on two simulated Sparks writes docs/preview.svg."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from rich.text import Text

from benchmarks.chart import recording, svg
from ops.pulumi import ROOT
from simulator import up as simulation
from tests.e2e.conftest import Stack

FILE = ROOT / "docs" / "preview.svg"
OUTPUTS = re.compile(r"\nOutputs:\n.*?\n(?=Resources:)", re.DOTALL)
"""Of the stack: of no news in this picture, and long."""


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
    console = recording()
    console.print(Text(f"$ {command}\n", style="bold"))
    console.print(Text.from_ansi(OUTPUTS.sub("\n", said).rstrip()))
    return svg(console, "pulumi preview")


if __name__ == "__main__":
    main()
