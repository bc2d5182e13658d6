"""`./spark switch`: what becomes of the stack's file when it goes no further than the question."""

import pytest

from ops import switch
from ops.pulumi import CommandError

BEFORE = "config:\n  dgx-spark:model: gpt-oss-20b\n"


class Folder:
    """A project with two stacks; `config set` writes the file as Pulumi does."""

    def __init__(self, folder, *, works=True):
        self.folder, self.works = folder, works
        for stack in self.stacks():
            self.file(stack).write_text(BEFORE)

    def stacks(self):
        return {"one": True, "two": False}

    def chosen(self, name):
        return name or "one"

    def file(self, stack):
        return self.folder / f"Pulumi.{stack}.yaml"

    def config(self, stack, key):
        return "gpt-oss-20b" if key == "model" else None

    def changes(self, stack):
        return ["cluster-staged-x-spark-1"]

    def up(self, stack):
        if self.works is None:
            raise KeyboardInterrupt
        return self.works

    def run(self, *words):
        if words[:2] == ("config", "set"):
            self.file(words[-1]).write_text(BEFORE + f"  {' '.join(words)}\n")
        return 0


def interrupted(question):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stack", "change"),
    [
        ("one", lambda where, confirm: switch.switch(where, "gpt-oss-120b", None, confirm)),
        ("one", lambda where, confirm: switch.switch(where, "gpt-oss-120b", None, confirm, stage_only=True)),
        ("two", lambda where, confirm: switch.switch(where, "two", None, confirm)),
    ],
    ids=["to a model", "staged", "to a stack"],
)
def test_the_stacks_file_is_as_it_was_after_a_no_and_after_ctrl_c_at_the_question(tmp_path, stack, change):
    where = Folder(tmp_path)
    change(where, lambda question: False)
    assert where.file(stack).read_text() == BEFORE
    with pytest.raises(KeyboardInterrupt):
        change(where, interrupted)
    assert where.file(stack).read_text() == BEFORE
    change(where, lambda question: True)
    assert where.file(stack).read_text() != BEFORE


def test_a_model_that_does_not_get_ready_leaves_the_file_as_it_was(tmp_path):
    where = Folder(tmp_path, works=False)
    with pytest.raises(CommandError, match="did not come back"):
        switch.switch(where, "gpt-oss-120b", None, lambda question: True)
    assert where.file("one").read_text() == BEFORE


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("gpt-oss-120b", "one is on its way to gpt-oss-120b: `pulumi up` goes on, ./spark rollback returns"),
        ("two", "two is on its way: ./spark switch two goes on, ./spark switch one returns"),
    ],
)
def test_ctrl_c_while_pulumi_runs_keeps_the_new_one_and_says_both_ways_on(tmp_path, target, said):
    where = Folder(tmp_path, works=None)
    with pytest.raises(CommandError, match=f"interrupted: {said}"):
        switch.switch(where, target, None, lambda question: True)
    assert where.file("two" if target == "two" else "one").read_text() != BEFORE
