"""`./spark switch` and `./spark rollback`: another model or stack serves, or the former one does again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops.project import Project
from ops.pulumi import CommandError
from ops.switch import rollback, switch
from simulator import sparks
from tests.e2e.conftest import Stack, step

pytestmark = pytest.mark.e2e


def yes(_question):
    return True


def where(stack):
    return Project(stack.folder, stack.environment)


def test_another_model_serves_and_a_broken_one_does_not_stay(alone, third):
    alone.up()

    step("not confirmed: nothing changes")
    before = (alone.folder / f"Pulumi.{alone.name}.yaml").read_text()
    switch(where(alone), "gpt-oss-20b", None, lambda _question: False)
    assert (alone.folder / f"Pulumi.{alone.name}.yaml").read_text() == before
    assert alone.outputs()["model"] == "openai/gpt-oss-120b"

    step("confirmed: the other model serves")
    switch(where(alone), "gpt-oss-20b", None, yes)
    assert alone.outputs()["model"] == "openai/gpt-oss-20b"
    assert alone.complete()["choices"]

    step("a model that is not there")
    with pytest.raises(CommandError, match=r"nobody/nothing can't be served .* nothing was changed"):
        switch(where(alone), "nobody/nothing", None, yes)

    step("a model that breaks")
    # What the stand-ins do is read when a container starts: the next server breaks, the one after it does not.
    with (
        sparks.turned([third], crash="CUDA error: out of memory", crash_model="gpt-oss-120b"),
        pytest.raises(CommandError, match=r"gpt-oss-120b did not get ready .* gpt-oss-20b serves again"),
    ):
        switch(where(alone), "gpt-oss-120b", None, yes)
    assert alone.outputs()["model"] == "openai/gpt-oss-20b"
    assert alone.complete()["choices"]
    assert alone.is_clean()

    step("back, and back again")
    rollback(where(alone), None, yes)
    assert alone.outputs()["model"] == "openai/gpt-oss-120b"
    rollback(where(alone), None, yes)
    assert alone.outputs()["model"] == "openai/gpt-oss-20b"
    assert alone.complete()["choices"]


@pytest.mark.long
def test_another_stack_takes_its_turn_and_a_broken_one_gives_it_back(alone, third):
    other = Stack(alone.folder, "other", [third], engine="sglang", model="gpt-oss-20b")
    try:
        step("the other stack takes its turn")
        alone.up()
        switch(where(alone), "other", "alone", yes)
        assert other.complete()["choices"]
        assert other.is_clean()

        step("back to one that breaks: the other serves again")
        with (
            sparks.turned([third], crash="CUDA error: out of memory", crash_model="gpt-oss-120b"),
            pytest.raises(CommandError, match=r"alone did not get ready .* other serves again"),
        ):
            switch(where(alone), "alone", "other", yes)
        assert other.complete()["choices"]
    finally:
        other.destroy()


@pytest.mark.parametrize("engine", ["vllm", pytest.param("sglang", marks=pytest.mark.long)])
def test_what_a_pair_has_accepted_is_answered_before_another_model_comes(simulated, tmp_path, engine):
    pair = simulated[:2]
    stack = Stack(tmp_path, "drains", pair, engine=engine, serving={"executor": "mp"} if engine == "vllm" else {})
    try:
        # What the stand-ins do is read when a container starts.
        with sparks.turned(pair, word_seconds=0.2):
            stack.up()
        outputs, began = stack.outputs(), time.time()

        def answer():
            text = stack.complete(outputs=outputs, max_tokens=90)["choices"][0]["text"]
            return len(text.split()), time.time()

        with ThreadPoolExecutor(1) as pool:
            step("an answer of 18 s, and another model meanwhile")
            asked = pool.submit(answer)
            switch(where(stack), "gpt-oss-20b", None, yes)
            words, answered = asked.result()
        assert words == 90
        told = moment(pair[0], stack.container("server"), "kill", began)
        ended = moment(pair[1], stack.container("server"), "die", began)
        assert told < answered < ended
    finally:
        stack.destroy()


def moment(spark, container, event, since):
    """When something first happened to a container, in seconds since 1970."""
    about = f"--filter container={container} --filter event={event} --format '{{{{.TimeNano}}}}'"
    shown = sparks.on(spark, f"docker events --since {since:.0f} --until $(date +%s) {about}")
    return int(shown.split()[0]) / 1e9
