"""Serves the package `dgx-spark` to Pulumi's engine, from the packages of ../.venv."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components.package import serve

if __name__ == "__main__":
    serve(sys.argv[1:])
