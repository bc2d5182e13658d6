"""Runs in the image of the genuine vLLM, with SGLang's wheel beside it: each command line of the standard input, as
SGLang reads it.

stdin   JSON: name → words after `python3 -m sglang.launch_server`
stdout  JSON: name → {wrong: what is said against it, key: the API's key}
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

# For kernels and notebooks: no command line needs them.
for name in ("triton", "triton.language", "IPython", "IPython.display"):
    sys.modules[name] = MagicMock()

from sglang.srt.server_args import prepare_server_args  # noqa: E402


def read(words: list[str]) -> dict[str, str]:
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error):
            return {"wrong": "", "key": prepare_server_args(words).api_key or ""}
    except SystemExit:
        return {"wrong": error.getvalue(), "key": ""}
    except (TypeError, ValueError) as wrong:
        return {"wrong": str(wrong), "key": ""}


Path("/run/api-key.yaml").write_text(json.dumps({"api-key": "the-key"}))
print(json.dumps({name: read(words) for name, words in json.load(sys.stdin).items()}))
