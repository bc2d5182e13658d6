"""Runs in the image of the genuine vLLM: each command line of the standard input, by vLLM's own parser.

stdin   JSON: name → words after `vllm serve`
stdout  JSON: name → what the parser says against it
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser


def said(words: list[str]) -> str:
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error):
            validate_parsed_serve_args(parser.parse_args(words))
    except SystemExit:
        return error.getvalue()
    except (TypeError, ValueError) as wrong:
        return str(wrong)
    return ""


# The program puts one there for the models that need it.
TEMPLATE = Path("/opt/dgx-spark/chat-template.jinja")
TEMPLATE.parent.mkdir(parents=True)
TEMPLATE.write_text("{{ messages }}")
parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
print(json.dumps({name: text for name, words in json.load(sys.stdin).items() if (text := said(words))}))
