"""What is said of an image while it is built: the part that is under way, in few lines, and no screens of text."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components.remote import parcel
from components.scripts.shared.building import KEPT, Parts, told
from tests.unit.home import record

BUILDKIT = """#0 building with "default" instance using docker driver
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#5 [build 2/3] RUN git clone https://example.com/vllm
#5 CACHED
#6 [build 3/3] RUN python3 -m pip wheel .
#6 0.512 Step 9/9 : no step
#6 ...

#7 [serve 1/2] RUN apt-get update
#7 0.101 Get:1 http://example.com
#7 DONE 12.0s
"""


def at(text, every=1):
    """What is under way after these lines, of which one came each `every` seconds."""
    parts = Parts()
    for number, line in enumerate(text.splitlines(keepends=True)):
        parts.take(line, number * every)
    return parts.now


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("", None),
        # The daemon itself is no part, and what has ended is none that is under way.
        ("#0 building with default\n", None),
        ("#1 [internal] load\n#1 DONE 0.0s\n", None),
        ("#5 [2/3] RUN make\n#5 CACHED\n", None),
        ('#5 [2/3] RUN false\n#5 ERROR: process "false" did not complete successfully: exit code: 1\n', None),
        # Of several, the one that spoke last; its name comes again, and what it says is none.
        ("#6 [a 1/2] RUN a\n#6 ...\n\n#7 [b 1/2] RUN b\n#7 0.1 DONE with it\n", ("[b 1/2] RUN b", 3)),
        ("#6 [a 1/2] RUN a\n#6 ...\n\n#7 [b 1/2] RUN b\n#7 ...\n\n#6 [a 1/2] RUN a\n#6 9.9 x\n", ("[a 1/2] RUN a", 0)),
        (BUILDKIT, ("[build 3/3] RUN python3 -m pip wheel .", 6)),
        # A pull is over and begins again.
        (
            "#4 [1/2] FROM cuda\n#4 DONE 0.1s\n\n#4 [1/2] FROM cuda\n#4 sha256:1 1.00GB / 3.00GB\n",
            ("[1/2] FROM cuda", 3),
        ),
        ("#9 exporting to image\n#9 exporting layers\n", ("exporting to image", 0)),
        ("Step 1/2 : FROM cuda\n ---> 0123\nStep 2/2 : RUN make\n ---> Running in 4567\n", ("[2/2] RUN make", 2)),
    ],
)
def test_the_part_that_is_under_way_is_known_by_what_either_builder_prints(text, now):
    assert at(text) == now


def test_a_part_is_told_with_its_time_and_without_what_arguments_stand_for():
    name = "[build 2/3] RUN pip install --index-url https://me:pa$$word@mirror -j 16"
    arguments = {"INDEX": "https://me:pa$$word@mirror", "PASSWORD": "pa$$word", "JOBS": "16"}
    said = told(name, 150, arguments)
    assert said == "building [build 2/3], 2 min: RUN pip install --index-url ${INDEX} -j 16"
    assert told("exporting to image", 5, {}) == "building, 5 s: exporting to image"
    # The first line of a terminal shows where it is, however long an instruction is.
    assert len(told(f"[1/2] RUN {'x && ' * 100}", 5, {})) < 150


DOCKER = """#!/bin/sh
case $1 in
build) cat >/dev/null
    while IFS= read -r line; do
        case $line in
        "until "*) until grep -qF -- "${line#until }" HERE/said; do sleep 0.02; done ;;
        *) echo "$line" >&STREAM ;;
        esac
    done <HERE/prints
    exit "$(cat HERE/code)" ;;
*) echo sha256:1 ;;
esac
"""
"""Prints what a build prints, and waits where it says so until the script has said something."""


@pytest.fixture
def builds(home, monkeypatch):
    """image_build.py with a Docker that prints this on that stream; returns its exit code and what it said."""

    def run(prints, *, code=0, stream=2, args=None, limit=20):
        here = home.path
        (here / "bin").mkdir()
        docker = here / "bin/docker"
        docker.write_text(DOCKER.replace("HERE", str(here)).replace("STREAM", str(stream)))
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")
        (here / "prints").write_text(prints)
        (here / "code").write_text(str(code))
        given = {"dockerfile": "FROM cuda\n", "args": args or {}, "tag": "dgx-spark/vllm:abc", "limit": limit}
        command = parcel.command("image_build.py", "apply", limit=20).replace("python3", sys.executable, 1)
        with (here / "said").open("w") as said:
            done = subprocess.run(
                ["sh", "-c", command], input=home.text("image_build.py", {**given, "record": record("image-build")}),
                env=home.environment(), stdout=subprocess.PIPE, stderr=said, text=True,
            )  # fmt: skip
        return done.returncode, done.stdout, (here / "said").read_text()

    return run


@pytest.mark.parametrize(
    ("stream", "prints"),
    [
        (
            2,
            "#1 [internal] load\nuntil building [internal], \n#1 DONE 0.1s\n\n#5 [build 2/3] RUN git clone abcdef\n"
            "until : RUN git clone ${REF}\n#5 0.2 Cloning\n#5 DONE 3.0s\n\n"
            "#6 exporting to image\nuntil : exporting to image\n",
        ),
        (
            1,
            "Step 1/2 : FROM cuda\nuntil building [1/2], \n ---> 0123\nStep 2/2 : RUN make\n"
            "until building [2/2], \nCloning\n",
        ),
    ],
)
def test_a_build_says_what_it_is_at_while_it_lasts(builds, often, stream, prints):
    code, out, said = builds(prints, stream=stream, args={"REF": "abcdef"})
    assert (code, out) == (0, "sha256:1\n")
    assert "abcdef" not in said
    # Of what the commands in it print, nothing.
    assert "Cloning" not in said


def test_a_short_build_says_no_more_than_that_it_begins(builds):
    code, _, said = builds(BUILDKIT)
    assert code == 0
    assert len(said.splitlines()) == 1


def test_a_build_that_fails_ends_with_the_last_that_it_said(builds):
    last = 'ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2\n'
    code, _, said = builds("#5 [2/2] RUN make\n" + "#5 0.1 gcc: a line\n" * 1000 + last, code=1)
    assert code == 1
    begin, _, words = said.partition("the build of dgx-spark/vllm:abc failed:\n")
    assert len(begin.splitlines()) == 1
    assert words.endswith(f"{last}\n")
    assert len(words) == KEPT + 1


def test_a_build_that_takes_too_long_is_ended(builds):
    code, _, said = builds("#5 [2/2] RUN make\nuntil it is said\n", limit=1)
    assert code == 1
    assert said.endswith("the build of dgx-spark/vllm:abc was not done within 1 s\n")
